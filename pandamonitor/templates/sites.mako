<%namespace name="parts" file="/parts.mako"/>
<h1>Sites <span class="dim">${count(len(rows))} queues; endings, pilots and transfers of the last ${hours} hours</span></h1>
% if rows:
<div class="scroll panel" tabindex="0" role="region" aria-label="Sites">
<table class="wide">
<caption class="hidden">Queues</caption>
<thead><tr><th scope="col">Queue</th><th scope="col">Status</th><th scope="col">Cloud, tier</th><th scope="col" class="n">Queued</th><th scope="col" class="n">With pilots</th><th scope="col" class="n">Finishing</th><th scope="col" class="n">Finished</th><th scope="col" class="n">Failed</th><th scope="col">Success</th><th scope="col" class="n">Pilots asked</th><th scope="col">Last seen</th><th scope="col" class="n">In</th><th scope="col" class="n">Out</th></tr></thead>
<tbody>
% for row in rows:
<% name = row.queue.name %>\
<tr><th scope="row"><a href="${query.link('/sites/' + name)}">${name}</a></th><td class="switch"><span class="q-status q-${row.queue.status}">${row.queue.status}</span>\
% if row.told:
 <span class="dim">${row.standing.by_name}</span><span class="why" title="${row.standing.reason}">${row.standing.reason}</span>\
% endif
</td><td>${row.queue.cloud}, ${row.queue.tier}</td>
${parts.number(row.queued, query.link('/jobs', site=name, state=groups['queued']))}
${parts.number(row.with_pilot, query.link('/jobs', site=name, state=groups['with_pilot']), 'c-running')}
${parts.number(row.after_pilot, query.link('/jobs', site=name, state=groups['after_pilot']), 'c-transferring')}
${parts.number(row.number(finished), query.link('/jobs', site=name, state='finished'), 'c-finished')}
${parts.number(row.number(failed), query.link('/jobs', site=name, state='failed'), 'c-failed')}
<td class="rate">${row.success}<span>${percent(row.number(finished), row.number(finished, failed))}</span></td>
<td class="n">${count(row.requests)} <span class="dim">→ ${count(row.given)}</span></td><td class="when">\
% if row.last_seen:
<span title="${row.last_seen}">${duration((now - row.last_seen).total_seconds())} ago</span>\
% else:
<span class="none">never</span>\
% endif
</td><td class="n">${size(row.bytes_in) if row.bytes_in else '–'}</td><td class="n">${size(row.bytes_out) if row.bytes_out else '–'}</td></tr>
% endfor
</tbody>
</table>
</div>
<p class="dim">Pilots asked → got a job.</p>
% else:
<p class="empty panel">No queue is configured.</p>
% endif
