<h1>Search <span class="dim">${wanted}</span></h1>
% if not wanted:
<p class="empty panel">Type the number of a job, or the name of a dataset, site, user or file into the box above.</p>
% elif not datasets and not jobs:
<p class="empty panel">Nothing bears this name, or one like it.</p>
% else:
<p class="dim">Nothing has exactly this name; these are like it (at most ${limit} of each).</p>
% endif
% if datasets:
<section class="panel"><h2>Datasets</h2><ul class="plainlist">
% for one in datasets:
<li><a class="name" href="${query.link('/datasets/' + one.name)}">${one.name}</a> <span class="dim">${one.type} ${one.status}</span></li>
% endfor
</ul></section>
% endif
% if jobs:
<section class="panel"><h2>Jobs of the last month</h2><ul class="plainlist">
% for one in jobs:
<li><a href="${query.link(f'/jobs/{one.job_id}')}">${one.job_id}</a> ${badge(one.state)} <span class="name">${one.name}</span></li>
% endfor
</ul></section>
% endif
