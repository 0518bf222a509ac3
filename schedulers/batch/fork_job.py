"""Runs one pilot of the fork back end and leaves its exit code on disk, whether or not a scheduler is alive by then.

It is started by its path in an isolated interpreter, so it imports nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOB = "job.json"
STARTED = "started.json"
CANCELLED = "cancelled.json"
ENDED = "ended.json"


def now_text() -> str:
    """Write the present moment as all files of a job do."""
    return datetime.now(UTC).isoformat()


def write_new(path: Path, content: Mapping[str, Any]) -> bool:
    """Create the file whole or not at all; False when it was there already and is left as it was."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def process_identity(pid: int) -> str | None:
    """Name a living process so that no later one with the same pid is taken for it; None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{pid}:{start_ticks}"


def run_pilot(job: Mapping[str, Any], stop_asked: list[int]) -> tuple[int, str]:
    """Run the pilot to its end and give its exit code, negative for a signal."""
    try:
        process = subprocess.Popen(job["argv"], env=job["environment"], cwd=job["work_dir"])
    except OSError as error:
        return 127, f"could not be started: {error}"
    if stop_asked:
        process.terminate()
    return process.wait(), ""


def main(directory: Path) -> None:
    """Claim the job, run it, note how it ended; do nothing when another process has claimed it before."""
    stop_asked: list[int] = []
    # The SIGTERM of a cancel goes to the whole group and is meant for the pilot; this process stays to note the end.
    signal.signal(signal.SIGTERM, lambda number, _frame: stop_asked.append(number))
    job = json.loads((directory / JOB).read_text())
    started = {"pid": os.getpid(), "identity": process_identity(os.getpid()), "started_at": now_text()}
    if not write_new(directory / STARTED, started):
        return
    # Looked at after the claim is visible: whoever cancels writes first and looks for the claim second.
    if (directory / CANCELLED).exists():
        exit_code, reason = None, "cancelled before it began"
    else:
        exit_code, reason = run_pilot(job, stop_asked)
    write_new(directory / ENDED, {"exit_code": exit_code, "reason": reason, "ended_at": now_text()})
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # nothing that the pilot left behind may go on using its slot


if __name__ == "__main__":
    main(Path(sys.argv[1]))
