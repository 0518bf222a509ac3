<%namespace name="parts" file="/parts.mako"/>
<h1>Jobs <span class="dim">living, and those that ended in the last ${hours_text(hours)}</span></h1>
% if chips:
<ul class="chips" aria-label="Filters that are on">
% for chip in chips:
<li><a href="${chip.href}" title="Take this filter away"><span class="dim">${chip.name}</span> ${chip.text} <span aria-hidden="true">×</span></a></li>
% endfor
<li><a class="plain" href="${query.link('/jobs')}">Clear all</a></li>
</ul>
% endif

<details class="panel filters" id="filters">
<summary>Filters</summary>
<form action="${query.link('/jobs')}" method="get">
<fieldset><legend>State</legend>
% for state in states:
<label class="check"><input type="checkbox" name="state" value="${state}"${' checked' if str(state) in query.texts('state') else ''}>${badge(state)}</label>
% endfor
</fieldset>
<div class="fields">
% for name, text in (('site', 'Site'), ('owner', 'Owner'), ('label', 'Label')):
<label>${text}
% for value in query.texts(name):
<input name="${name}" aria-label="${text}" maxlength="255" value="${value}"${' list=sites' if name == 'site' else ''}>
% endfor
<input name="${name}" aria-label="Another ${text}" maxlength="255" value="" placeholder="${'and another' if query.texts(name) else 'any'}"${' list=sites' if name == 'site' else ''}></label>
% endfor
% for name, text, hint in (('task', 'Task', 'number'), ('definition', 'Definition', 'number'), ('dataset', 'Dataset', 'full name'), ('name', 'Name', 'part of it'), ('error', 'Error', 'pilot:1137')):
<label>${text}<input name="${name}" maxlength="255" value="${query.text(name)}" placeholder="${hint}"></label>
% endfor
<label>Ended in the last<select name="hours">
% for choice in sorted({*all_hours, hours}):
<option value="${choice}"${' selected' if choice == hours else ''}>${hours_text(choice)}</option>
% endfor
</select></label>
<label>Rows<select name="size">
% for choice in sizes:
<option value="${choice}"${' selected' if choice == screen.size else ''}>${choice}</option>
% endfor
</select></label>
</div>
<datalist id="sites">
% for site in sites:
<option value="${site}"></option>
% endfor
</datalist>
<p><button type="submit">Show jobs</button></p>
</form>
</details>

<section class="summary" aria-label="Summary">
% for summary in summaries:
<div class="panel"><h2>${summary.name}</h2>
% if summary.values:
<ul>
% for value in summary.values:
<li><a href="${value.href}"${' aria-current=true' if value.chosen else ''}>\
% if summary.name == 'state':
${badge(value.text)}\
% else:
<span class="name">${value.text or '(none)'}</span>\
% endif
</a><span class="n">${count(value.number)}</span></li>
% endfor
% if summary.more:
<li class="dim">and ${count(summary.more)} more</li>
% endif
</ul>
% else:
<p class="empty">–</p>
% endif
</div>
% endfor
</section>

${parts.pager(query, screen, 'jobs')}
% if jobs:
<div class="scroll panel" tabindex="0" role="region" aria-label="Jobs">
<table class="wide">
<caption class="hidden">Jobs</caption>
<thead><tr>${parts.column(query, 'id', 'Job', sort)}${parts.column(query, 'state', 'State', sort)}${parts.column(query, 'changed', 'In it since', sort)}${parts.column(query, 'site', 'Site', sort)}${parts.column(query, 'owner', 'Owner', sort)}<th scope="col">Label</th>${parts.column(query, 'name', 'Name', sort)}${parts.column(query, 'task', 'Task', sort, style='n')}${parts.column(query, 'attempt', 'Tries', sort, style='n')}${parts.column(query, 'priority', 'Priority', sort, style='n')}${parts.column(query, 'created', 'Submitted', sort)}</tr></thead>
<tbody>
% for job in jobs:
<tr><td><a href="${query.link(f'/jobs/{job.job_id}')}">${job.job_id}</a></td><td>${badge(job.state)}</td><td class="when">${moment(job.state_since)}</td><td>\
% if job.site:
<a href="${query.link('/sites/' + job.site)}">${job.site}</a>\
% else:
<span class="none">–</span>\
% endif
</td><td class="name"><a href="${query.href(owner=job.owner_name)}">${job.owner_name}</a></td><td>${job.label}</td><td class="name">${job.name}\
% if job.job_id in errors and str(job.state) != 'finished':
<span class="diag">${errors[job.job_id].error.family} ${errors[job.job_id].error.code}: ${errors[job.job_id].error.diagnostic}</span>\
% endif
</td><td class="n">\
% if job.task_id:
<a href="${query.href(task=job.task_id)}">${job.task_id}</a>\
% else:
<span class="none">–</span>\
% endif
</td><td class="n">${job.attempt}</td><td class="n">${job.priority}</td><td class="when">${moment(job.created_at)}</td></tr>
% endfor
</tbody>
</table>
</div>
${parts.pager(query, screen, 'jobs') if screen.pages > 1 else ''}
% else:
<p class="empty panel">No job is like this. Jobs that ended earlier: choose a longer time in the filters.</p>
% endif
