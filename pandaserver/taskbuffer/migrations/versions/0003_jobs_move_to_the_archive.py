"""Jobs move to the archive from now on, for every server looks there; indexes that nothing uses any more are gone."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
phase = "post"


def upgrade() -> None:
    """Bring the schema one step forward."""
    op.execute("DELETE FROM schema_floor")
    op.execute("INSERT INTO schema_floor (revision) VALUES ('0002')")
    with op.batch_alter_table("job_history", schema=None) as batch_op:
        batch_op.drop_index("ix_history_at")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_definition")
