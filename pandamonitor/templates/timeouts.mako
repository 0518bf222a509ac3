<h1>Timeouts <span class="dim">how long a job may stay in a state, and what happens then</span></h1>
<p class="dim">${'As in the configuration of the server.' if from_server else 'The built-in values; the server may have others in its configuration (start the monitor with --server-config to see them).'}</p>
<div class="scroll panel">
<table>
<caption class="hidden">Timeouts by state</caption>
<thead><tr><th scope="col">State</th><th scope="col">Jobs</th><th scope="col" class="n">After</th><th scope="col">The clock starts</th><th scope="col">Then</th><th scope="col">Recorded as</th></tr></thead>
<tbody>
% for rule, meaning in rows:
<tr><td><a href="${query.link('/jobs', state=str(rule.state), sort='changed')}">${badge(rule.state)}</a></td><td>${rule.subject}</td><td class="n">${duration(rule.after_s)}</td><td>${"at the pilot's last word" if rule.heartbeat else 'at the last change of state'}</td><td><strong>${rule.action}</strong></td><td>${rule.family} ${int(rule.code)} <span class="dim">${meaning}</span></td></tr>
% endfor
</tbody>
</table>
</div>

<h2>Retry rules <span class="dim">what follows a failed attempt: the first rule that fits decides</span></h2>
<p class="dim">The built-in rules; those of the installation come in front of them, and the server's call system/get_retry_rules tells all.</p>
<div class="scroll panel">
<table>
<caption class="hidden">Built-in retry rules, in the order in which they are asked</caption>
<thead><tr><th scope="col">Rule</th><th scope="col">Errors</th><th scope="col">Jobs</th><th scope="col">Then</th></tr></thead>
<tbody>
% for rule in retry_rules:
<tr><td>${rule.name}</td><td>${rule.family or 'any'} ${', '.join(map(str, rule.codes))}${' asked for by the pilot' if rule.wished else ''}</td><td>${', '.join(rule.labels) or 'any'}</td><td><strong>${rule.action}</strong></td></tr>
% endfor
</tbody>
</table>
</div>
