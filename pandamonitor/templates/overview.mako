<%namespace name="parts" file="/parts.mako"/>
<h1 class="hidden">Overview</h1>
<section class="tiles" aria-label="Totals">
% for tile in tiles:
<a class="tile t-${tile.style}" href="${tile.href}"><span class="label">${tile.name}</span><strong>${count(tile.number)}</strong><span class="note">${tile.note}</span></a>
% endfor
</section>

<div class="two">
<section class="panel">
<h2>What is wrong now\
% if troubles:
 <span class="tally">${len(troubles)}</span>\
% endif
</h2>
% if troubles:
<ul class="troubles" tabindex="0">
% for trouble in troubles:
<li class="l-${trouble.level}"><a href="${trouble.href}">${icon(trouble.level)}<span><span class="hidden">${trouble.level}: </span><strong>${trouble.text}</strong> <span class="dim">${trouble.detail}</span></span></a></li>
% endfor
</ul>
% else:
<p class="allgood">${icon('good')}Nothing is known to be wrong.</p>
% endif
</section>

<section class="panel">
<h2>Jobs that ended in the last ${hours} hours</h2>
<div class="scroll">${chart}</div>
<ul class="legend"><li class="k-finished">${icon('finished')}finished</li><li class="k-failed">${icon('failed')}failed</li><li class="dim">per half hour, UTC</li></ul>
% if success:
<div class="bysite">
<h3>Success by site</h3>
% for one in success:
<a href="${query.link('/sites/' + one.site)}">${one.site}</a>${one.bar}<span class="n">${percent(one.finished, one.finished + one.failed)}</span><a class="n ${'c-failed' if one.failed else 'dim'}" href="${query.link('/jobs', site=one.site, state='failed')}">${count(one.failed)} failed</a>
% endfor
</div>
% endif
</section>
</div>

<section class="panel">
<h2>Jobs by site and state <span class="dim">ended ones of the last ${hours} hours · ${count(matrix.total)} in all</span></h2>
% if matrix.rows:
<div class="scroll" tabindex="0" role="region" aria-label="Jobs by site and state">
<table class="matrix">
<caption class="hidden">Number of jobs by site and state</caption>
<thead><tr><th scope="col">Site</th>
% for state in matrix.states:
<th scope="col" class="n">${badge(state)}</th>
% endfor
<th scope="col" class="n">all</th></tr></thead>
<tbody>
% for site, row in matrix.rows:
<tr><th scope="row">\
% if site in queues:
<a href="${query.link('/sites/' + site)}">${site}</a>\
% if str(queues[site].status) != "online":
 <span class="q-status q-${queues[site].status}">${queues[site].status}</span>\
% endif
% else:
<span class="dim">${site or 'no site yet'}</span>\
% endif
</th>
% for state, value in zip(matrix.states, row):
${parts.number(value, query.link('/jobs', site=site or no_site, state=str(state)), 'c-' + str(state))}
% endfor
${parts.number(sum(row), query.link('/jobs', site=site or no_site))}</tr>
% endfor
</tbody>
<tfoot><tr><th scope="row">All sites</th>
% for state, value in zip(matrix.states, matrix.sums):
${parts.number(value, query.link('/jobs', state=str(state)))}
% endfor
${parts.number(matrix.total, query.link('/jobs'))}</tr></tfoot>
</table>
</div>
% else:
<p class="empty">No sites and no jobs yet.</p>
% endif
</section>

<div class="two">
<section class="panel">
<h2>Running now</h2>
% if running:
<div class="scroll">
<table>
<caption class="hidden">Jobs that pilots have, the latest first</caption>
<thead><tr><th scope="col">Job</th><th scope="col">State</th><th scope="col">Site</th><th scope="col">Owner</th><th scope="col" class="n">For</th><th scope="col" class="n">Last word</th></tr></thead>
<tbody>
% for job in running:
<tr><td><a href="${query.link(f'/jobs/{job.job_id}')}">${job.job_id}</a></td><td>${badge(job.state)}</td><td><a href="${query.link('/sites/' + (job.site or ''))}">${job.site}</a></td><td class="name">${job.owner_name}</td><td class="n">${duration((now - job.state_since).total_seconds())}</td><td class="n">${duration((now - job.modified_at).total_seconds())} ago</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">No job is with a pilot.</p>
% endif
</section>

<section class="panel">
<h2><a href="${query.link('/transfers')}">Transfers</a> <span class="dim">last ${hours} hours</span></h2>
% if transfers:
<div class="scroll">
<table>
<caption class="hidden">Transfers by destination</caption>
<thead><tr><th scope="col">From</th><th scope="col">To</th><th scope="col">State</th><th scope="col" class="n">Files</th><th scope="col" class="n">Volume</th></tr></thead>
<tbody>
% for one in sorted(transfers, key=lambda t: (t.destination, t.source, t.state))[:12]:
<tr><td class="name">${one.source or '–'}</td><td class="name">${one.destination}</td><td>${badge(one.state)}</td>${parts.number(one.number, query.link('/transfers', transfer=one.state, destination=one.destination))}<td class="n">${size(one.size_bytes)}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">Nothing was copied.</p>
% endif
</section>
</div>
