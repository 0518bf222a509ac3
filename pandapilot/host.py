"""Facts about this worker node that help the server to choose a job for it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

MIB = 1024 * 1024


def node_name() -> str:
    """Return the name of this machine."""
    return platform.node() or "unknown"


def memory_mb() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB


def free_disk_mb(directory: Path) -> int:
    """Return the free space where jobs would work."""
    return shutil.disk_usage(directory).free // MIB
