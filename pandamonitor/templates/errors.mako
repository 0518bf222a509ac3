<%namespace name="parts" file="/parts.mako"/>
<h1>Errors <span class="dim">${count(total)}${'+' if partial else ''} in the last ${hours_text(hours)}</span></h1>
${parts.span_of_time(query, hours, all_hours)}
% if partial:
<p class="partial">Partial: the newest ones only, there are more than could be looked at. Choose a shorter time.</p>
% endif
<ul class="chips" aria-label="Filters">
% for family in families:
<li><a href="${query.href(family=None if query.text('family') == str(family) else str(family))}"${' aria-current=true' if query.text('family') == str(family) else ''}>${family}</a></li>
% endfor
% for name in ('site', 'error'):
% if query.text(name):
<li><a href="${query.href(**{name: None})}"><span class="dim">${name}</span> ${query.text(name)} <span aria-hidden="true">×</span></a></li>
% endif
% endfor
</ul>
% if sites:
<section class="panel">
<h2>By site</h2>
<ul class="counts">
% for site, number in sites[:30]:
<li><a href="${query.href(site=site or None)}">${site or 'no site'}</a> <span class="n">${count(number)}</span></li>
% endfor
</ul>
</section>
% endif
% if groups:
<div class="scroll panel" tabindex="0" role="region" aria-label="Groups of errors">
<table class="wide">
<caption class="hidden">Errors by code and words, most frequent first</caption>
<thead><tr><th scope="col" class="n">Errors</th><th scope="col">Code</th><th scope="col">Meaning and words</th><th scope="col">Sites</th><th scope="col">Last</th></tr></thead>
<tbody>
% for group in groups:
<tr><td class="n"><strong>${count(group.number)}</strong>${share(group.number, worst)}</td><td class="code"><a href="${query.href(error=group.error)}">${group.family} ${group.code}</a></td><td class="words"><strong>${group.meaning.text}</strong><span class="diag">${group.diagnostic}</span><span class="remedy dim">${group.meaning.remedy}</span></td><td>\
% for site, number in group.sites[:6]:
<a class="pair" href="${query.link('/jobs', error=group.error, hours=hours, site=site or 'none')}">${site or 'no site'} <span class="dim">${count(number)}</span></a> \
% endfor
${f'and {len(group.sites) - 6} more' if len(group.sites) > 6 else ''}</td><td class="when">${moment(group.last_at)}<br><a href="${query.link(f'/jobs/{group.last_job}')}">job ${group.last_job}</a></td></tr>
% endfor
</tbody>
</table>
</div>
% if hidden:
<p class="partial">${count(hidden)} rarer groups are in the JSON and CSV.</p>
% endif
% else:
<p class="allgood panel">${icon('good')}No errors in this time.</p>
% endif
