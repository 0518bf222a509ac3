<%namespace name="parts" file="/parts.mako"/>
<h1>Datasets</h1>
<form class="line panel" action="${query.link('/datasets')}" method="get">
<label>Name<input name="name" maxlength="255" value="${query.text('name')}" placeholder="part of it"></label>
<label>Type<select name="type"><option value="">any</option>
% for one in types:
<option${' selected' if str(one) == query.text('type') else ''}>${one}</option>
% endfor
</select></label>
<label>Status<select name="status"><option value="">any</option>
% for one in statuses:
<option${' selected' if str(one) == query.text('status') else ''}>${one}</option>
% endfor
</select></label>
<button type="submit">Show</button>
</form>
${parts.pager(query, screen, 'datasets')}
% if rows:
<div class="scroll panel" tabindex="0" role="region" aria-label="Datasets">
<table class="wide">
<caption class="hidden">Datasets</caption>
<thead><tr>${parts.column(query, 'name', 'Name', sort, 'order')}${parts.column(query, 'type', 'Type', sort, 'order')}${parts.column(query, 'status', 'Status', sort, 'order')}<th scope="col" class="n">Files</th><th scope="col" class="n">Size</th><th scope="col">For</th>${parts.column(query, 'created', 'Since', sort, 'order')}</tr></thead>
<tbody>
% for one in rows:
<tr><td class="name"><a href="${query.link('/datasets/' + one.name)}">${one.name}</a></td><td>${one.type or 'in the catalogue'}</td><td>${one.status}</td>${parts.number(one.files)}<td class="n">${size(one.size_bytes) if one.files else ''}</td><td>${one.endpoint or '–'}</td><td class="when">${moment(one.created_at)}</td></tr>
% endfor
</tbody>
</table>
</div>
% else:
<p class="empty panel">No dataset is like this.</p>
% endif
