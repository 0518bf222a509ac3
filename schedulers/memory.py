"""What the scheduler remembers from one cycle to the next and over its own restarts; everything else is asked anew."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from schedulers.batch.protocol import BatchId
from schedulers.breaker import Breaker
from schedulers.errors import SchedulerError

FILE = "memory.json"
LOCK = "lock"


@dataclass
class Memory:
    """The pilots whose end is still to be learnt from, by queue, and the health of the queues."""

    watched: dict[BatchId, str] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)


def load(state_dir: Path) -> Memory:
    """Read what the last scheduler here remembered; nothing when there was none."""
    path = state_dir / FILE
    try:
        content = json.loads(path.read_text())
        breakers = {queue: _breaker(values) for queue, values in content["breakers"].items()}
        return Memory(dict(content["watched"]), breakers)
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchedulerError(
            f"{path}: cannot be understood ({error!r}); it may be deleted, no pilot is lost"
        ) from error


def save(memory: Memory, state_dir: Path) -> None:
    """Write the memory down whole or not at all."""
    draft = state_dir / f".{FILE}"
    content = {"watched": memory.watched, "breakers": {queue: asdict(b) for queue, b in memory.breakers.items()}}
    draft.write_text(json.dumps(content, default=datetime.isoformat))
    draft.replace(state_dir / FILE)


def _breaker(values: Mapping[str, Any]) -> Breaker:
    times = {name: datetime.fromisoformat(values[name]) for name in ("opened_at", "paused_until")}
    return Breaker(**{**values, **times})


@contextmanager
def only_scheduler(state_dir: Path) -> Iterator[None]:
    """Hold the state directory, so that two schedulers never send for the same queues from it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SchedulerError(f"state_dir {state_dir}: {error.strerror}") from error
    try:
        _lock(handle, state_dir)
        yield
    finally:
        # Said aloud: a process started this moment may still hold a copy of the handle, and closing ours would not do.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _lock(handle: int, state_dir: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SchedulerError(f"another scheduler is using {state_dir}; give this one a state_dir of its own") from error
