"""Submits jobs all the time to a server that is being reloaded, killed or moved, and notes what was answered.

It runs inside the rehearsed machine, with PanDA's own environment, as users' programs do.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

_AT_ONCE = 4
_PAUSE_S = 1.0
_AGAIN_AFTER_S = 0.3
_TIMEOUT_S = 20.0
_OUTPUT = "load.$PANDAID.txt"


def submit(session: requests.Session, server: str, job: dict[str, object]) -> tuple[int, int]:
    """Submit a job until there is an answer; give its id, and how often it had to be repeated.

    Raises:
        ValueError: the server refuses it.
    """
    fields = {"jobs": json.dumps([job]), "clientKey": str(uuid.uuid4())}
    repeats = 0
    while True:
        try:
            answer = session.post(f"{server}/server/panda/submitJobs", data=fields, timeout=_TIMEOUT_S)
            if answer.status_code == 200:
                return int(answer.json()[0][0]), repeats
            if answer.status_code < 500:
                raise ValueError(f"refused: {answer.status_code} {answer.text}")
        except requests.RequestException:
            session.close()
        repeats += 1
        time.sleep(_AGAIN_AFTER_S)


def submit_while(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Submit one after another over a connection of its own, until the file that says so is gone."""
    session, found = requests.Session(), list[tuple[int, int]]()
    session.trust_env, session.cert, session.verify = False, options.proxy, options.ca_dir
    output = {"type": "output", "lfn": _OUTPUT, "dataset": "user.alice.load"}
    job: dict[str, object] = {"transformation": options.transformation, "jobParameters": _OUTPUT, "Files": [output]}
    while options.go_on.exists():
        found.append(submit(session, options.server, job))
        time.sleep(_PAUSE_S)
    return found


def main() -> None:
    """Submit over several connections."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("server", "proxy", "ca-dir", "transformation"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--while", dest="go_on", type=Path, required=True, help="end when this file is gone")
    options = parser.parse_args()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [each for several in pool.map(submit_while, [options] * _AT_ONCE) for each in several]
    print(json.dumps({"ids": [job_id for job_id, _ in found], "repeats": sum(repeats for _, repeats in found)}))


if __name__ == "__main__":
    main()
