<h1>Log of job <a href="${query.link(f'/jobs/{job.job_id}')}">${job.job_id}</a> ${badge(job.state)}</h1>
<p class="dim name">${lfn}</p>
<div class="logs">
<section class="panel">
<h2>Members <span class="tally">${len(members)}</span></h2>
<div class="scroll">
<table>
<caption class="hidden">Members of the log tarball</caption>
<thead><tr><th scope="col">Name</th><th scope="col" class="n">Size</th><th scope="col">Changed</th></tr></thead>
<tbody>
% for one in members:
<tr${' aria-current=true' if shown and shown.member.number == one.number else ''}><td class="name">\
% if one.kind == 'file':
<a href="${query.href(member=one.number)}">${one.name}</a>\
% else:
${one.name} <span class="dim">${one.kind}</span>\
% endif
</td><td class="n">${size(one.size_bytes) if one.kind == 'file' else ''}</td><td class="when">${moment(one.modified_at)}</td></tr>
% endfor
</tbody>
</table>
</div>
</section>
% if shown:
<section class="panel">
<h2>${shown.member.name}</h2>
% if shown.binary:
<p class="empty">This is no text.</p>
% else:
% if shown.skipped_bytes:
<p class="partial">The last part; ${size(shown.skipped_bytes)} before it are left out.</p>
% endif
<pre class="log tall" tabindex="0">${shown.text or '(empty)'}</pre>
% endif
</section>
% endif
</div>
