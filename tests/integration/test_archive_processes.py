"""Processes that archive are killed at any moment, while others look and kill: each job stays in one place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.model.file import FileType, NewFile
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import archive, schema
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection, Database
from pandaserver.userinterface import manage

JOBS = 240
OWNER = "/CN=alice"


def archive_until_killed(url: str, batch: int, slow_s: float) -> None:
    """Be a server's duty that never ends; `slow_s` is spent between any two statements that move."""
    run = archive.Prepared.run

    def slowly(self: Any, connection: Connection, **given: Any) -> int:
        time.sleep(slow_s)
        return run(self, connection, **given)

    archive.Prepared.run = slowly  # type: ignore[method-assign]
    buffer = TaskBuffer(Database(url))
    archiver = Archiver(buffer, ArchivePolicy(0, batch))
    while True:
        archiver.run_once()


@pytest.fixture
def filled(prepared_url: str) -> Iterator[TaskBuffer]:
    buffer = TaskBuffer(Database(prepared_url))
    files = [NewFile(lfn=f"out.{n}", type=FileType.OUTPUT, dataset="d", scope="s") for n in range(2)]
    f.accept(buffer, *(f.new_job(*files, parameters=str(n)) for n in range(JOBS)), owner=OWNER)
    ended = sa.update(schema.jobs).values(
        state=JobState.FINISHED.value, ended_at=buffer.now(), state_since=buffer.now()
    )
    buffer.run(lambda c: c.execute(ended.where(schema.jobs.c.job_id % 6 != 0)))
    yield buffer
    buffer.database.close()


def contents(buffer: TaskBuffer) -> dict[str, list[str]]:
    """All rows of jobs wherever they are, and which jobs are where."""

    def read(connection: Connection) -> dict[str, list[str]]:
        found = {}
        for name, old in schema.archived.items():
            live = schema.metadata.tables[name]
            both = [sa.select(*live.c), sa.select(*(old.c[c.name] for c in live.c))]
            found[name] = sorted(repr(tuple(row)) for one in both for row in connection.execute(one))
        return found

    return buffer.read(read)


def moved(buffer: TaskBuffer) -> int:
    table = schema.archived["jobs"]
    return buffer.read(lambda c: int(c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()))


@pytest.mark.restart
def test_killed_at_any_moment(filled: TaskBuffer, prepared_url: str) -> None:
    before = contents(filled)
    spawn = multiprocessing.get_context("spawn")
    for number, slow_s in enumerate((0.02, 0.005, 0.001, 0.0)):
        process = spawn.Process(target=archive_until_killed, args=(prepared_url, 7, slow_s))
        process.start()
        enough = moved(filled) + 8 * (number + 1)
        give_up = time.monotonic() + 30
        while moved(filled) < min(enough, 200) and time.monotonic() < give_up:
            time.sleep(0.002)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(10)
        assert contents(filled) == before, "each row is there once, as it was"
    assert moved(filled) >= 40
    while Archiver(filled, ArchivePolicy(0, 50)).run_once():
        pass
    assert contents(filled) == before
    assert moved(filled) == JOBS * 5 // 6


@pytest.mark.restart
def test_users_notice_nothing(filled: TaskBuffer, prepared_url: str) -> None:
    """While jobs move, each question about them has an answer, and each kill that of the moment."""
    ids = list(range(1, JOBS + 1))
    first = manage.describe(filled, ids)
    process = multiprocessing.get_context("spawn").Process(target=archive_until_killed, args=(prepared_url, 10, 0.002))
    wrong: list[str] = []
    stop = threading.Event()

    def look() -> None:
        mine = TaskBuffer(Database(prepared_url))
        while not stop.is_set():
            told = manage.describe(mine, ids)
            wrong.extend(
                f"job {job_id} was told otherwise"
                for job_id, now, then in zip(ids, told, first, strict=True)
                if job_id % 6 and now != then
            )
        mine.database.close()

    def kill() -> None:
        mine = TaskBuffer(Database(prepared_url))
        for job_id in range(6, JOBS + 1, 6):
            answers = manage.kill(mine, [job_id - 1, job_id], dn=OWNER, operator=False)
            if answers != [False, True]:
                wrong.append(f"kill of {job_id} was answered {answers}")
        mine.database.close()

    threads = [threading.Thread(target=look), threading.Thread(target=kill)]
    process.start()
    for thread in threads:
        thread.start()
    threads[1].join(60)
    give_up = time.monotonic() + 30
    while moved(filled) < JOBS and time.monotonic() < give_up:
        time.sleep(0.02)
    stop.set()
    threads[0].join(60)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    assert wrong == []
    assert moved(filled) == JOBS, "those that were killed have moved as well"
