<%namespace name="parts" file="/parts.mako"/>
<header class="headline">
<h1>${queue.name} <span class="q-status q-${queue.status}">${queue.status}</span></h1>
<p>cloud ${queue.cloud} · tier ${queue.tier} · pilots last seen \
% if row.last_seen:
${moment(row.last_seen)} UTC\
% else:
never in a week\
% endif
</p>
% if row.standing and row.standing.since:
<p class="switched">\
% if row.told:
<strong>${queue.status}</strong> by ${row.standing.by_name}, since ${moment(row.standing.since)} UTC\
% if row.standing.until:
, until ${moment(row.standing.until)} UTC\
% endif
: “${row.standing.reason}”\
% if row.standing.switch and not row.standing.removed_at:
 · ${row.standing.configured} by the ${source_names[row.standing.source]}\
% endif
% else:
${queue.status} by the ${row.standing.by_name}, since ${moment(row.standing.since)} UTC\
% endif
</p>
% endif
</header>
<section class="tiles few" aria-label="Jobs here">
% for state in states:
<a class="tile t-${state}" href="${query.link('/jobs', site=queue.name, state=str(state))}"><span class="label">${badge(state)}</span><strong>${count(row.number(state))}</strong></a>
% endfor
% if not states:
<p class="empty panel">No jobs here in the last ${hours} hours.</p>
% endif
</section>
<div class="two">
<section class="panel">
<h2>Requests of pilots</h2>
<div class="scroll">${chart}</div>
<ul class="legend"><li class="k-given"><span class="dot"></span>got a job</li><li class="k-empty"><span class="dot"></span>nothing for them</li><li class="dim">per hour, UTC · ${count(row.requests)} in ${hours} hours, ${count(row.given)} jobs given, ${count(row.updates)} heartbeats</li></ul>
</section>
<section class="panel">
<h2>The queue</h2>
<dl class="facts">
<dt>Site</dt><dd>${queue.site}</dd>
<dt>Endpoint</dt><dd>${queue.endpoint} <span class="dim name">${endpoint.url if endpoint else 'not configured'}</span></dd>
<dt>Success</dt><dd>${percent(row.number(finished), row.number(finished, failed))} of ${count(row.number(finished, failed))} · <a href="${query.link('/errors', site=queue.name)}">errors here</a></dd>
<dt>Moved</dt><dd>${size(row.bytes_in)} in, ${size(row.bytes_out)} out · <a href="${query.link('/transfers', destination=queue.endpoint)}">transfers here</a></dd>
<dt>Limits</dt><dd>${queue.cores} core${'s' if queue.cores != 1 else ''}${f' · {queue.memory_mb} MB memory' if queue.memory_mb else ''}${f' · {queue.max_work_dir_mb} MB disk' if queue.max_work_dir_mb else ''}${f' · {duration(queue.max_wall_time_s)} wall time' if queue.max_wall_time_s else ''}${f' · {queue.max_input_mb} MB input' if queue.max_input_mb else ''}</dd>
<dt>Releases</dt><dd class="name">${', '.join(queue.releases) or 'any'}</dd>
<dt>Platforms</dt><dd class="name">${', '.join(queue.platforms) or 'any'}</dd>
<dt>VOs</dt><dd>${', '.join(queue.vos) or 'any'}</dd>
% if row.standing:
<dt>Described by</dt><dd>${'nobody any more, since ' + f'{row.standing.removed_at:%Y-%m-%d %H:%M} UTC' if row.standing.removed_at else f'the {source_names[row.standing.source]}'}</dd>
% endif
<dt>Heartbeat</dt><dd>${duration(queue.heartbeat_s)}</dd>
</dl>
</section>
</div>
<section class="panel">
<h2>Nodes <span class="dim">last ${hours} hours, most failures first</span></h2>
% if nodes:
<div class="scroll">
<table>
<caption class="hidden">Attempts by node</caption>
<thead><tr><th scope="col">Node</th><th scope="col" class="n">Under way</th><th scope="col" class="n">Finished</th><th scope="col" class="n">Failed</th><th scope="col" class="n">Lost</th><th scope="col">Last job taken</th></tr></thead>
<tbody>
% for node in nodes:
<tr><th scope="row" class="name">${node.node or '(not told)'}</th>${parts.number(node.running, style='c-running')}${parts.number(node.finished, style='c-finished')}${parts.number(node.failed, style='c-failed')}${parts.number(node.lost, style='c-failed')}<td class="when">${moment(node.last_claim)}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">No pilot took a job here.</p>
% endif
</section>
<section class="panel" id="history">
<h2>Who set the status <span class="dim">newest first</span></h2>
% if history:
<div class="scroll" tabindex="0" role="region" aria-label="History of the status">
<table>
<caption class="hidden">History of the status</caption>
<thead><tr><th scope="col">When</th><th scope="col">From</th><th scope="col">To</th><th scope="col">By</th><th scope="col">Until</th><th scope="col">Why</th></tr></thead>
<tbody>
% for one in history:
<tr><td class="when">${moment(one.at)}</td><td>\
% if one.from_status:
<span class="q-status q-${one.from_status}">${one.from_status}</span>\
% else:
<span class="none">–</span>\
% endif
</td><td><span class="q-status q-${one.to_status}">${one.to_status}</span></td><td>${one.by_name}</td><td class="when">${moment(one.until) if one.until else '–'}</td><td class="why">${one.reason or one.action}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">Nobody did, since this is written down.</p>
% endif
</section>
