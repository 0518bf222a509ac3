<%namespace name="parts" file="/parts.mako"/>
<h1>Transfers <span class="dim">queued, and those of the last ${hours_text(hours)}</span></h1>
${parts.span_of_time(query, hours, all_hours)}
<ul class="chips" aria-label="Filters">
% for name, number in by_state.items():
<li><a href="${query.without('transfer', name) if name in query.texts('transfer') else query.href(transfer=name)}"${' aria-current=true' if name in query.texts('transfer') else ''}>${name} <strong>${count(number)}</strong></a></li>
% endfor
% for name in ('destination', 'source', 'dataset'):
% if query.text(name):
<li><a href="${query.href(**{name: None})}"><span class="dim">${name}</span> ${query.text(name)} <span aria-hidden="true">×</span></a></li>
% endif
% endfor
</ul>
% if links:
<section class="panel">
<h2>Between endpoints</h2>
<div class="scroll">
<table>
<caption class="hidden">Transfers by source and destination</caption>
<thead><tr><th scope="col">From</th><th scope="col">To</th><th scope="col">State</th><th scope="col" class="n">Files</th><th scope="col" class="n">Volume</th><th scope="col" class="n">Rate of one copy</th><th scope="col">Oldest</th></tr></thead>
<tbody>
% for one in links:
<tr><td>${one.source or '–'}</td><td>${one.destination}</td><td>${badge(one.state)}</td>${parts.number(one.number, query.href(transfer=one.state, destination=one.destination, source=one.source or None))}<td class="n">${size(one.size_bytes)}</td><td class="n">${size(one.size_bytes / one.seconds) + '/s' if one.seconds else '–'}</td><td class="when">${moment(one.oldest)}</td></tr>
% endfor
</tbody>
</table>
</div>
</section>
% endif
${parts.pager(query, screen, 'transfers')}
% if rows:
<div class="scroll panel" tabindex="0" role="region" aria-label="Transfers">
<table class="wide">
<caption class="hidden">Transfers, newest first</caption>
<thead><tr><th scope="col">State</th><th scope="col">From</th><th scope="col">To</th><th scope="col">File</th><th scope="col" class="n">Size</th><th scope="col" class="n">Took</th><th scope="col">Asked for</th><th scope="col">Ended</th></tr></thead>
<tbody>
% for one in rows:
<tr><td>${badge(one.state)}</td><td>${one.source or '–'}</td><td>${one.destination}</td><td class="name">${one.lfn} <a class="dim" href="${query.link('/datasets/' + one.dataset)}">${one.dataset}</a>\
% if one.message:
<span class="diag">${one.message}</span>\
% endif
</td><td class="n">${size(one.size_bytes)}</td><td class="n">${duration(one.seconds)}</td><td class="when">${moment(one.created_at)}</td><td class="when">${moment(one.ended_at)}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty panel">No transfer is like this.</p>
% endif
