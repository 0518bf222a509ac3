"""Runs migrations on the connection that migrate.py hands over."""

from __future__ import annotations

from alembic import context

from pandaserver.taskbuffer.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    user_module_prefix="schema.",
)
context.run_migrations()
