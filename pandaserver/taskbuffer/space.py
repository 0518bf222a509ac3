"""How much room is left at storage endpoints, where that is known: by their quota and the built-in catalogue."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema

_endpoints, _replicas, _files = schema.endpoints, schema.ddm_replicas, schema.ddm_files
_MB_PER_GB = 1000**3 / 1024**2


def free_mb(connection: Connection) -> dict[str, int]:
    """Give the free space by endpoint, in MB; endpoints without a quota are left out."""
    wanted = sa.select(_endpoints.c.name, _endpoints.c.quota_gb).where(_endpoints.c.quota_gb > 0)
    quotas = {row.name: row.quota_gb for row in connection.execute(wanted)}
    if not quotas:
        return {}
    same = sa.and_(_files.c.scope == _replicas.c.scope, _files.c.lfn == _replicas.c.lfn)
    used = (
        sa.select(_replicas.c.endpoint, sa.func.sum(_files.c.size_bytes).label("bytes"))
        .join_from(_replicas, _files, same)
        .where(_replicas.c.endpoint.in_(sorted(quotas)))
        .group_by(_replicas.c.endpoint)
    )
    sums = {row.endpoint: int(row.bytes) for row in connection.execute(used)}
    return {name: int(quota * _MB_PER_GB - sums.get(name, 0) / 1024**2) for name, quota in quotas.items()}
