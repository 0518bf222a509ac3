<%def name="pager(query, screen, things)">
<nav class="pager" aria-label="Screens of ${things}">
<p><strong>${count(screen.total)}${'+' if screen.partial else ''}</strong> ${things}\
% if screen.total:
, shown ${count(screen.first)}–${count(screen.last)}\
% endif
% if screen.partial:
 <span class="partial">partial: there are more than could be counted, narrow the filters</span>\
% endif
</p>
% if screen.pages > 1:
<ul>
% if screen.page > 1:
<li><a href="${query.href(page=1)}">First</a></li><li><a rel="prev" href="${query.href(page=screen.page - 1)}">Previous</a></li>
% endif
<li class="dim">page ${count(screen.page)} of ${count(screen.pages)}</li>
% if screen.page < screen.pages:
<li><a rel="next" href="${query.href(page=screen.page + 1)}">Next</a></li><li><a href="${query.href(page=screen.pages)}">Last</a></li>
% endif
</ul>
% endif
</nav>
</%def>

<%def name="column(query, name, text, sort, parameter='sort', style='')">
<%
    down, up = sort == f"-{name}", sort == name
    order = "descending" if down else "ascending" if up else "none"
    first = name if name in ("name", "site", "owner", "state", "type", "status") else f"-{name}"
    other = name if down else f"-{name}" if up else first
%>\
<th scope="col" aria-sort="${order}" class="${style}"><a href="${query.href(**{parameter: other})}">${text}<span aria-hidden="true">${" ▾" if down else " ▴" if up else ""}</span></a></th>\
</%def>

<%def name="span_of_time(query, hours, choices)">
<ul class="choices" aria-label="Time">
% for choice in choices:
<li><a href="${query.href(hours=choice)}"${' aria-current=true' if choice == hours else ''}>${hours_text(choice)}</a></li>
% endfor
</ul>
</%def>

<%def name="number(value, href=None, style='')">
% if value:
<td class="n ${style}">\
% if href:
<a href="${href}">${count(value)}</a>\
% else:
${count(value)}\
% endif
</td>
% else:
<td class="n zero">·</td>
% endif
</%def>
