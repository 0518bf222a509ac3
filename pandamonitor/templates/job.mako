<%namespace name="parts" file="/parts.mako"/>
<header class="headline">
<h1>Job <span class="copy">${job.job_id}</span> ${badge(job.state)}</h1>
<p>in this state since ${moment(job.state_since)} UTC\
% if not final:
, for ${duration((now - job.state_since).total_seconds())}\
% endif
% if record.archived:
 · in the archive\
% endif
% if job.kill_requested and not final:
 · <strong class="bad">kill requested</strong>\
% endif
</p>
% if job.name:
<p class="name">${job.name}</p>
% endif
</header>

% if errors:
<section class="panel wrong">
<h2>What went wrong</h2>
<ul class="errors">
% for one in errors:
<li class="${'current' if one.current and not str(job.state) == 'finished' else 'past'}"><p><strong>${one.error.error.family} ${one.error.error.code}</strong> ${one.meaning.text} <span class="dim">attempt ${one.error.attempt}, ${moment(one.error.at)}</span></p>
% if one.error.error.diagnostic:
<p class="diag">${one.error.error.diagnostic}</p>
% endif
<p class="remedy"><span class="dim">What to do:</span> ${one.meaning.remedy} <a href="${query.link('/jobs', error=f'{one.error.error.family}:{one.error.error.code}')}">Jobs with the same</a></p></li>
% endfor
</ul>
</section>
% endif

<section class="panel">
<h2>Timeline</h2>
${timeline}
<div class="scroll">
<table class="stays">
<caption class="hidden">States of the job, oldest first</caption>
<thead><tr><th scope="col">State</th><th scope="col">Since</th><th scope="col" class="n">For</th><th scope="col" class="n">Attempt</th><th scope="col">Why</th></tr></thead>
<tbody>
% for stay in stays:
<tr><td class="b-${stay.state}">${badge(stay.state)}</td><td class="when">${moment(stay.since)}</td><td class="n">${duration(stay.seconds) if stay.seconds is not None else ''}</td><td class="n">${stay.attempt or ''}</td><td class="why">${stay.reason}</td></tr>
% endfor
</tbody>
</table>
</div>
% if rule:
<p class="dim">${icon('waiting')} May stay ${job.state} ${duration(rule.after_s)}${' without a word of the pilot' if rule.heartbeat else ''}, then: ${rule.action}. \
% if left_s > 0:
${duration(left_s)} are left.\
% else:
<strong class="bad">That time is over.</strong>\
% endif
 <a href="${query.link('/timeouts')}">All timeouts</a></p>
% endif
</section>

<div class="two">
<section class="panel">
<h2>The job</h2>
<dl class="facts">
<dt>Owner</dt><dd><a href="${query.link('/jobs', owner=job.owner_name)}">${job.owner_name}</a> <span class="dim name">${job.owner}</span></dd>
<dt>Site</dt><dd>\
% if job.site:
<a href="${query.link('/sites/' + job.site)}">${job.site}</a>${' (asked for by the user)' if job.pinned else ''}\
% else:
none yet\
% endif
</dd>
<dt>Kind</dt><dd>${job.label}${' · ' + job.processing_type if job.processing_type else ''}${' · VO ' + job.vo if job.vo else ''}</dd>
<dt>Priority</dt><dd>${job.priority} <span class="dim">assigned ${job.assigned_priority}</span></dd>
<dt>Attempts</dt><dd>${job.attempt} <span class="dim">${job.failed_attempts} lost, ${job.max_attempt or 'default number'} allowed</span></dd>
<dt>Transformation</dt><dd class="name">${job.transformation}</dd>
% if job.release or job.platform:
<dt>Software</dt><dd class="name">${job.release} ${job.platform}</dd>
% endif
<dt>Needs</dt><dd>${job.cores} core${'s' if job.cores != 1 else ''}${f' · {job.memory_mb} MB memory' if job.memory_mb else ''}${f' · {job.disk_mb} MB disk' if job.disk_mb else ''}${f' · {duration(job.wall_time_s)} wall time' if job.wall_time_s else ''}</dd>
% if wall_s is not None:
<dt>Ran</dt><dd>${duration(wall_s)}</dd>
% endif
% if job.definition_id or job.task_id or job.parent_id:
<dt>Definition</dt><dd><a href="${query.link('/jobs', owner=job.owner_name, definition=job.definition_id, hours=8760)}">${job.definition_id}</a>\
% if job.task_id:
 · task <a href="${query.link('/jobs', task=job.task_id, hours=8760)}">${job.task_id}</a>\
% endif
% if job.parent_id:
 · retry of <a href="${query.link(f'/jobs/{job.parent_id}')}">${job.parent_id}</a>\
% endif
</dd>
% endif
% for text, name in (('Input', job.input_dataset), ('On its way in', job.dispatch_dataset), ('Output', job.output_dataset)):
% if name:
<dt>${text}</dt><dd class="name"><a href="${query.link('/datasets/' + name)}">${name}</a></dd>
% endif
% endfor
% if job.destination:
<dt>Destination</dt><dd>${job.destination}</dd>
% endif
<dt>Submitted</dt><dd>${moment(job.created_at)}</dd>
<dt>Last word</dt><dd>${moment(job.modified_at)}</dd>
</dl>
</section>

<section class="panel" id="why">
<h2>${'Why nowhere' if last_round and not last_round.queue else 'Why here'}</h2>
% if last_round:
% if last_round.advice:
<p class="remedy"><span class="dim">What would help:</span> ${last_round.advice}.</p>
% endif
<div class="scroll" tabindex="0" role="region" aria-label="What was said of each site">
<table>
<caption class="hidden">What the brokerage said of each site</caption>
<thead><tr><th scope="col">Site</th><th scope="col">Verdict</th><th scope="col">Because of</th><th scope="col">Reason</th><th scope="col" class="n">Weight</th></tr></thead>
<tbody>
% for one in verdicts:
<tr class="v-${one.said.verdict}"><td>\
% for name in one.sites[:6]:
${'' if loop.first else ', '}<a href="${query.link('/sites/' + name)}">${name}</a>\
% endfor
% if len(one.sites) > 6:
 and ${len(one.sites) - 6} more\
% endif
</td><td class="verdict">${icon({'chosen': 'good', 'rejected': 'cancelled'}.get(one.said.verdict, 'defined'))}${one.said.verdict}</td><td>${one.said.criterion or ('load and data' if one.said.weight is not None else '–')}</td><td class="why">${one.said.reason}</td><td class="n">${f'{one.said.weight:.3g}' if one.said.weight is not None else '–'}</td></tr>
% endfor
</tbody>
</table>
</div>
<p class="dim">Said ${moment(last_round.at)}; a smaller weight is better.\
% if last_round.more:
 ${last_round.more} more sites were possible.\
% endif
% if len(record.rounds) > 1:
 ${len(record.rounds) - 1} earlier rounds are in the JSON.\
% endif
</p>
% else:
<p class="empty">${'No word of the brokerage is recorded.' if final else 'The brokerage has said nothing yet.'}</p>
% endif
</section>
</div>

<section class="panel">
<h2>Attempts</h2>
% if record.attempts:
<div class="scroll" tabindex="0" role="region" aria-label="Attempts">
<table>
<caption class="hidden">Attempts of pilots at this job</caption>
<thead><tr><th scope="col" class="n">No.</th><th scope="col">Site</th><th scope="col">Node</th><th scope="col">Taken</th><th scope="col">Ended</th><th scope="col">Outcome</th><th scope="col" class="n">Exit</th><th scope="col" class="n">CPU</th><th scope="col" class="n">Memory</th><th scope="col">Where the time went</th><th scope="col">Pilot</th></tr></thead>
<tbody>
% for one in record.attempts:
<tr><td class="n">${one.number}</td><td>${one.queue}</td><td class="node">${one.node or '–'}</td><td class="when">${moment(one.claimed_at)}</td><td class="when">\
% if one.ended_at:
${moment(one.ended_at)}\
% else:
<span class="dim">lease until</span> ${moment(one.lease_until)}\
% endif
</td><td>${badge(one.outcome or 'under way')}</td><td class="n">${one.exit_code or '–'}</td><td class="n">${duration(one.cpu_time_s)}</td><td class="n">${size(one.max_rss_kb * 1024 if one.max_rss_kb is not None else None)}</td><td class="spent">\
% if one.timing:
<%
    spent = [(n, s) for n, s in zip(('ask', 'stage-in', 'payload', 'stage-out', 'setup'), one.timing.split('|')) if s not in ('', '0')]
%>\
${', '.join(f'{n} {s} s' for n, s in spent) or '–'}\
% else:
–\
% endif
</td><td class="node dim">${one.pilot_id or '–'}${' · ' + one.scheduler_id if one.scheduler_id else ''}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty">No pilot has taken the job yet.</p>
% endif
</section>

% if record.retries:
<section class="panel">
<h2>Tried again</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Tried again">
<table>
<caption class="hidden">What was decided after each failed attempt</caption>
<thead><tr><th scope="col" class="n">Attempt</th><th scope="col">Site</th><th scope="col">When</th><th scope="col">Rule</th><th scope="col">Action</th><th scope="col">Done</th><th scope="col">Why</th></tr></thead>
<tbody>
% for one in record.retries:
<tr><td class="n">${one.attempt}</td><td>${one.queue}</td><td class="when">${moment(one.at)}</td><td>${one.rule}</td><td>${one.action}</td><td>${'yes' if one.done else 'only noted' if one.passive else 'no'}</td><td class="why">${one.reason}</td></tr>
% endfor
</tbody>
</table>
</div>
</section>
% endif

<section class="panel">
<h2>Files <span class="tally">${len(record.files)}</span></h2>
<div class="scroll" tabindex="0" role="region" aria-label="Files">
<table>
<caption class="hidden">Files of the job</caption>
<thead><tr><th scope="col">File</th><th scope="col">Type</th><th scope="col">Status</th><th scope="col" class="n">Size</th><th scope="col">Checksum</th><th scope="col">Copies</th><th scope="col">Dataset</th></tr></thead>
<tbody>
% for file in record.files:
<tr><td class="name"><span class="dim">${file.scope}:</span>${file.lfn}\
% if str(file.type) in ('log', 'oldlog') and (file.scope, file.lfn) in found.replicas:
 <a href="${query.link(f'/jobs/{job.job_id}/log', file=file.file_id)}">look inside</a>\
% endif
</td><td>${file.type}</td><td class="f-${file.status}">${file.status}</td><td class="n">${size(file.size_bytes)}</td><td><code>${file.checksum or '–'}</code></td><td>${', '.join(r.endpoint for r in found.replicas.get((file.scope, file.lfn), ())) or '–'}</td><td class="name"><a href="${query.link('/datasets/' + file.dataset)}">${file.dataset}</a></td></tr>
% endfor
</tbody>
</table>
</div>
% if found.makers or found.users:
<div class="two relatives">
% for title, relatives in (('Jobs that made its inputs', found.makers), ('Jobs that use its outputs', found.users)):
<div><h3>${title}</h3>
% if relatives:
<ul>
% for one in relatives[:40]:
<li><a href="${query.link(f'/jobs/{one.job_id}')}">${one.job_id}</a> ${badge(one.state)} <span class="name dim">${one.lfn}</span></li>
% endfor
% if len(relatives) > 40:
<li class="dim">and ${len(relatives) - 40} more, in the JSON</li>
% endif
</ul>
% else:
<p class="empty">None.</p>
% endif
</div>
% endfor
</div>
% endif
</section>

% if stdout or live:
<section class="panel">
<h2>End of the output ${'as of the last heartbeat' if live else ''}\
% if has_log:
 <a class="dim" href="${query.link(f'/jobs/{job.job_id}/log')}">all of the log</a>\
% endif
</h2>
% if stdout:
<pre class="log" tabindex="0">${stdout}</pre>
% else:
<p class="empty">The pilot has sent nothing yet.</p>
% endif
</section>
% elif has_log:
<section class="panel"><h2>Log</h2><p><a href="${query.link(f'/jobs/{job.job_id}/log')}">Look into the log tarball</a></p></section>
% endif
% if extract:
<section class="panel"><h2>What the pilot found in the log</h2><pre class="log" tabindex="0">${extract}</pre></section>
% endif
<details class="panel" id="parameters"><summary>Parameters and other attributes</summary>
<pre class="log wrap">${record.details.parameters or '(none)'}</pre>
% if record.details.attributes:
<dl class="facts">
% for name, value in sorted(record.details.attributes.items()):
<dt>${name}</dt><dd class="name">${value}</dd>
% endfor
</dl>
% endif
</details>
% if metadata:
<details class="panel" id="metadata"><summary>Job report</summary><pre class="log">${metadata}</pre></details>
% endif
