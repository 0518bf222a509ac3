<%namespace name="parts" file="/parts.mako"/>
<header class="headline">
<h1 class="name">${dataset.name}</h1>
<p>${dataset.type or ('in the catalogue' if dataset.created_at else 'named by jobs')} · ${dataset.status} · ${count(dataset.files)} files, ${size(dataset.size_bytes)}\
% if dataset.created_at:
 · since ${moment(dataset.created_at)} UTC\
% endif
% if dataset.parent:
 · part of <a href="${query.link('/datasets/' + dataset.parent)}">${dataset.parent}</a>\
% endif
</p>
</header>
<div class="two">
<section class="panel">
<h2>Where it is</h2>
% if places:
<div class="scroll">
<table>
<caption class="hidden">Copies by endpoint</caption>
<thead><tr><th scope="col">Endpoint</th><th scope="col" class="n">Files</th><th scope="col" class="n">Share</th><th scope="col">Wanted since</th></tr></thead>
<tbody>
% for place in places:
<tr><th scope="row">${place}</th>${parts.number(read.copies.get(place, 0))}<td class="n">${percent(read.copies.get(place, 0), dataset.files)}</td><td class="when">${moment(wanted.get(place))}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">No copies, and none wanted.</p>
% endif
% if read.transfers:
<h3>Transfers</h3>
<ul class="plainlist">
% for one in read.transfers:
<li><a href="${query.link('/transfers', dataset=dataset.name, transfer=one.state, destination=one.destination, hours=job_hours)}">${count(one.number)} ${one.state}</a> ${one.source or '…'} → ${one.destination}, ${size(one.size_bytes)}</li>
% endfor
</ul>
% endif
</section>
<section class="panel">
<h2><a href="${query.link('/jobs', dataset=dataset.name, hours=job_hours)}">Jobs</a> <span class="dim">${count(read.jobs.total)}${'+' if read.jobs.partial else ''} that read or write it</span></h2>
% if states:
<ul class="counts">
% for one in states:
<li><a href="${query.link('/jobs', dataset=dataset.name, state=one.text, hours=job_hours)}">${badge(one.text)}</a> <span class="n">${count(one.number)}</span></li>
% endfor
</ul>
% else:
<p class="empty">No job has to do with it.</p>
% endif
% if read.parts:
<h3>Parts</h3>
<ul class="plainlist">
% for one in read.parts:
<li><a class="name" href="${query.link('/datasets/' + one.name)}">${one.name}</a> <span class="dim">${one.status}, ${count(one.files)} files</span></li>
% endfor
</ul>
% endif
</section>
</div>
<section class="panel">
<h2>Files</h2>
${parts.pager(query, screen, 'files')}
% if read.files:
<div class="scroll" tabindex="0" role="region" aria-label="Files">
<table class="wide">
<caption class="hidden">Files of the dataset</caption>
<thead><tr><th scope="col">File</th><th scope="col" class="n">Size</th><th scope="col">adler32</th><th scope="col">Copies</th><th scope="col">GUID</th></tr></thead>
<tbody>
% for file in read.files:
<tr><td class="name"><span class="dim">${file.scope}:</span><a href="${query.link('/search', q=file.lfn)}" title="The job that made it">${file.lfn}</a></td><td class="n">${size(file.size_bytes)}</td><td><code>${file.adler32}</code></td><td>${', '.join(file.endpoints) or 'none'}</td><td><code class="dim">${file.guid}</code></td></tr>
% endfor
</tbody>
</table>
</div>
% endif
</section>
