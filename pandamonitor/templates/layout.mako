<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · ${brand}</title>
<link rel="icon" href="${static('icon.svg')}" type="image/svg+xml">
<link rel="stylesheet" href="${static('monitor.css')}">
<script src="${static('monitor.js')}" defer></script>
</head>
<body data-refresh-s="${refresh_s}">
${symbols}
<a class="skip" href="#main">To the content</a>
<header class="top">
<a class="brand" href="${navigation[0][0]}">${icon('running')}${brand}</a>
<nav aria-label="Pages">
<ul>
% for href, word, here in navigation:
<li><a href="${href}"${' aria-current=page' if here else ''}>${word}</a></li>
% endfor
</ul>
</nav>
<form class="search" role="search" action="${search}" method="get">
<input type="search" name="q" maxlength="255" placeholder="Job, dataset, user, site, file" aria-label="Find a job, dataset, user, site or file" accesskey="s">
<button type="submit">Find</button>
</form>
</header>
% if stale:
<p class="banner" role="alert">${icon('warning')}The database does not answer. This is what was known at <time datetime="${made_at}">${made_at_text}</time> UTC.</p>
% endif
<main id="main" tabindex="-1" data-made-at="${made_at or ''}">
${main}
</main>
<footer class="bottom">
% if made_at:
<p class="freshness">Data of <time id="made-at" datetime="${made_at}">${made_at_text}</time> UTC, <span id="age">${age_s} s</span> old when sent
<button type="button" id="pause" class="quiet" hidden aria-pressed="false">Pause</button>
<span id="refresh-note" role="status"></span></p>
% endif
<p>\
% if json:
<a href="${json}" rel="nofollow">JSON</a> \
% endif
% if csv:
<a href="${csv}" rel="nofollow">CSV</a> \
% endif
<span class="dim">All times are UTC; point at one for local time. PanDA monitor ${version}</span></p>
</footer>
</body>
</html>
