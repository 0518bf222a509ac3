<section class="problem">
<p class="big">${icon('bad' if status >= 500 else 'warning')}${status}</p>
<h1>${title}</h1>
<p>${message}</p>
% if field or value:
<dl>
% if field:
<dt>What</dt><dd><code>${field}</code></dd>
% endif
% if value:
<dt>Value</dt><dd><code>${value}</code></dd>
% endif
</dl>
% endif
<p><a href="${navigation[0][0]}">To the overview</a></p>
</section>
