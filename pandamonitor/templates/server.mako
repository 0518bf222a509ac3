<%namespace name="parts" file="/parts.mako"/>
<h1>Server <span class="dim">work to be done in the background, and who does it</span></h1>
<section class="panel">
<h2>Work by kind</h2>
% if work:
<div class="scroll">
<table>
<caption class="hidden">Open background work</caption>
<thead><tr><th scope="col">Kind</th><th scope="col" class="n">Open</th><th scope="col" class="n">Being done</th><th scope="col" class="n">Late</th><th scope="col" class="n">Tried before</th><th scope="col" class="n">Most tries</th><th scope="col">Oldest</th></tr></thead>
<tbody>
% for kind in work:
<tr><th scope="row">${kind.kind}</th>${parts.number(kind.number)}${parts.number(kind.held)}${parts.number(kind.late, style='c-failed')}${parts.number(kind.retried)}${parts.number(kind.max_tries)}<td class="when">${moment(kind.oldest)}</td></tr>
% endfor
</tbody>
</table>
</div>
<p class="dim">Late: due for more than ${duration(late_after_s)}.</p>
% else:
<p class="allgood">${icon('good')}Nothing is left to do.</p>
% endif
</section>
% if failing:
<section class="panel">
<h2>Tried in vain so far</h2>
<div class="scroll">
<table>
<caption class="hidden">Work that failed, most tries first</caption>
<thead><tr><th scope="col">Kind</th><th scope="col">Key</th><th scope="col" class="n">Tries</th><th scope="col">Next</th><th scope="col">Last error</th></tr></thead>
<tbody>
% for one in failing:
<tr><td>${one.kind}</td><td class="name">${one.key}</td><td class="n">${one.tries}</td><td class="when">${moment(one.due_at)}</td><td class="why">${one.last_error}</td></tr>
% endfor
</tbody>
</table>
</div>
</section>
% endif
<section class="panel">
<h2>Duties</h2>
% if duties:
<div class="scroll">
<table>
<caption class="hidden">Periodic duties</caption>
<thead><tr><th scope="col">Duty</th><th scope="col">Last done</th><th scope="col">Result</th><th scope="col">Next</th><th scope="col">By</th></tr></thead>
<tbody>
% for duty in duties:
<tr><th scope="row">${duty.name}${icon('bad') if duty.name in late else ''}</th><td class="when">${moment(duty.last_run_at)}</td><td class="why">${duty.last_result or '–'}</td><td class="when">${moment(duty.next_run_at)}${' late' if duty.name in late else ''}</td><td class="name dim">${duty.owner or '–'}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">No server has run yet.</p>
% endif
</section>
% if sources:
<section class="panel">
<h2>Where queues are described</h2>
% for one in sources:
<h3>${source_names[one.name]} <span class="dim name">${one.place}</span></h3>
<dl class="facts">
<dt>Read</dt><dd>\
% if one.read_at:
${moment(one.read_at)} UTC\
% else:
never\
% endif
</dd>
% if one.problem:
<dt class="bad-word">${icon('bad')} Wrong</dt><dd>since ${moment(one.problem_at)} UTC; what was read before goes on to hold
<pre class="said wrong" tabindex="0" aria-label="What is wrong">${one.problem}</pre></dd>
% endif
% if one.changed_at:
<dt>Last change</dt><dd>${moment(one.changed_at)} UTC
<pre class="said" tabindex="0" aria-label="What changed">${one.changes or ''}</pre></dd>
% endif
</dl>
% endfor
</section>
% endif
<section class="panel">
<h2>This monitor</h2>
<dl class="facts"><dt>Database</dt><dd class="name">${database}</dd><dt>Pages are kept</dt><dd>${duration(settings.cache_s)}, in ${settings.cache}</dd></dl>
</section>
