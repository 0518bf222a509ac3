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
