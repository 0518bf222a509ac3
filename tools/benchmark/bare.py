"""A child process: claims without PanDA around them, the least that a claim can cost."""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pymysql

ROWS = 50_000
QUEUES = 50
TABLE = f"""CREATE TABLE bare (
    job_id BIGINT PRIMARY KEY, queue INT NOT NULL, state INT NOT NULL, priority INT NOT NULL, worker INT NOT NULL,
    KEY ix_claim (queue, state, priority DESC, job_id)
) ENGINE=InnoDB AS
SELECT seq AS job_id, seq MOD {QUEUES} AS queue, 0 AS state, seq MOD 10 AS priority, 0 AS worker FROM seq_1_to_{ROWS}"""
_SELECT = (
    "SELECT job_id FROM bare WHERE queue = %s AND state = 0 ORDER BY priority DESC, job_id LIMIT 1 "
    "FOR UPDATE SKIP LOCKED"
)
_UPDATE = "UPDATE bare SET state = 1, worker = %s WHERE job_id = %s"


def claim_until(end: float, socket: str, password: str, *, worker: int, latencies: list[float]) -> None:
    """Claim one job after the other."""
    connection = pymysql.connect(unix_socket=socket, user="panda", password=password, database="bare")
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        number = worker
        while (begun := time.perf_counter()) < end:
            number += 1
            cursor.execute(_SELECT, (number % QUEUES,))
            row = cursor.fetchone()
            if row is not None:
                cursor.execute(_UPDATE, (worker, row[0]))
            connection.commit()
            if row is not None:
                latencies.append(time.perf_counter() - begun)
    connection.close()


def main() -> None:
    """Read the plan from a file, print what was measured."""
    told: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    latencies: list[float] = []
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    end = begun + told["seconds"]
    threads = [
        threading.Thread(
            target=claim_until,
            args=(end, told["socket"], told["password"]),
            kwargs={"worker": worker * 7, "latencies": latencies},
        )
        for worker in range(told["connections"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"latencies": latencies, "cpu_s": cpu_s, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
