"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

from pandaserver.taskbuffer import schema

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
phase = "pre"


def upgrade() -> None:
    """Bring the schema one step forward."""
    ${upgrades if upgrades else "pass"}
