"""Apache and its daemons reloaded, stopped and killed under load: what was acknowledged is there, once, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from conftest import MariaDB, pick_free_port
from factories import Pki, production_job
from private_httpd import ROOT, Httpd, Ports, is_running, private_httpd, wait_until

from pandaserver.model.states import JobState
from pandaserver.taskbuffer import jobs
from pandaserver.taskbuffer.database import Database

pytestmark = [pytest.mark.restart, pytest.mark.mysql]

QUEUE = "BNL"
USERS, PILOTS = 3, 3
JOBS_BEFORE, JOBS_AFTER = 25, 15
ENDED = {"finished", "failed", "cancelled", "closed", "lost"}


@pytest.fixture(scope="module")
def url(mariadb: MariaDB) -> str:
    return mariadb.new_database()


@pytest.fixture(scope="module")
def httpd(pki: Pki, url: str) -> Iterator[Httpd]:
    with private_httpd(pki, url, Ports(*(pick_free_port() for _ in range(3)))) as made:
        yield made


@dataclass
class Load:
    """Users and pilots who repeat each request until it is acknowledged, as real ones do, and remember what was."""

    httpd: Httpd
    submitted: list[int] = field(default_factory=list)
    claimed: list[dict[str, Any]] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    ending: threading.Event = field(default_factory=threading.Event)
    drained: threading.Event = field(default_factory=threading.Event)

    def until_answered(self, session: requests.Session, method: str, told: dict[str, Any]) -> Any:
        address = f"https://localhost:{self.httpd.port}/server/panda/{method}"
        while True:
            try:
                answer = session.post(address, json=told, timeout=20)
                if answer.status_code == 200:
                    return answer.json()
                self.troubles[str(answer.status_code)] += 1
                assert answer.status_code >= 500, answer.text
            except (requests.ConnectionError, requests.Timeout) as error:
                self.troubles[type(error).__name__] += 1
            time.sleep(0.05)

    def session(self, who: str) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify, session.cert = str(self.httpd.pki / "ca.pem"), str(self.httpd.pki / f"{who}.pem")
        return session

    def be_user(self) -> None:
        with self.session("prodman") as session:
            while not self.ending.is_set():
                job = production_job(computingSite=QUEUE, Files=[])
                told = {"jobs": [job], "clientKey": str(uuid.uuid4())}
                ((job_id, *_),) = self.until_answered(session, "submitJobs", told)
                self.submitted.append(job_id)

    def be_pilot(self) -> None:
        with self.session("pilot") as session:
            while not self.drained.is_set():
                told = {"siteName": QUEUE, "node": "wn1", "requestId": str(uuid.uuid4()), "wait": 1}
                job = self.until_answered(session, "getJob", told)
                if job["StatusCode"] != 0:
                    continue
                self.claimed.append(job)
                known = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job["jobToken"]}
                for more in ({"state": "running"}, {"state": "finished", "xml": self.httpd.outputs(job)}):
                    said = self.until_answered(session, "updateJob", known | more)
                    assert said["StatusCode"] == 0, said
                self.reported.append(job["PandaID"])


def under_load(httpd: Httpd, act: Callable[[], None], name: str) -> str:
    """Do something to a server in mid-flight, let everything end, and count; nothing may be lost or be there twice."""
    load = Load(httpd)
    users = [threading.Thread(target=load.be_user) for _ in range(USERS)]
    pilots = [threading.Thread(target=load.be_pilot) for _ in range(PILOTS)]
    for thread in (*users, *pilots):
        thread.start()
    try:
        wait_until(lambda: len(load.submitted) >= JOBS_BEFORE and load.reported, "there is load", log=httpd.log)
        act()
        enough = len(load.submitted) + JOBS_AFTER
        wait_until(lambda: len(load.submitted) >= enough, "the load goes on", log=httpd.log)
    finally:
        load.ending.set()
        for thread in users:
            thread.join()
        try:
            wait_until(lambda: set(load.reported) >= set(load.submitted), "all jobs are reported on", log=httpd.log)
        finally:
            load.drained.set()
            for thread in pilots:
                thread.join()
    return verdict(load, name)


def verdict(load: Load, name: str) -> str:
    ids = sorted(load.submitted)
    wait_until(lambda: set(states(load.httpd, ids)) <= ENDED, "all jobs have ended", log=load.httpd.log)
    ends = Counter(states(load.httpd, ids))
    lost = ends["lost"]
    twice = len(ids) - len(set(ids)) + sum(n - 1 for n in Counter(j["PandaID"] for j in load.claimed).values())
    answers = len(ids) + len(load.claimed) + 2 * len(load.reported)
    assert not twice and ends == {"finished": len(ids)}, (lost, twice, ends)
    assert sorted(load.reported) == ids
    troubles = ", ".join(f"{n} x {what}" for what, n in sorted(load.troubles.items())) or "none"
    return (
        f"{name:34} acknowledged {answers:5} ({len(ids)} jobs, {len(load.claimed)} claims), lost {lost}, "
        f"twice {twice}, finished {ends['finished']}; answers that had to be asked for again: {troubles}"
    )


def states(httpd: Httpd, ids: list[int]) -> list[str]:
    """Ask what has become of jobs; one that the server does not know is lost."""
    found = httpd.call(None, "getJobStatus", ids=",".join(map(str, ids)))
    return [job["jobStatus"] if job else "lost" for job in found]


def graceful(httpd: Httpd) -> None:
    before = httpd.daemons()
    httpd.control("graceful")
    wait_until(lambda: not set(before) & set(httpd.daemons()), "the daemons are new ones")


def stop_and_start(httpd: Httpd) -> None:
    httpd.stop()
    httpd.start()


def kill_a_daemon(httpd: Httpd) -> None:
    victim = httpd.daemons()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not is_running(victim) and len(httpd.daemons()) == 2, "there is another daemon")


def kill_all_daemons(httpd: Httpd) -> None:
    victims = httpd.daemons()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(httpd.daemons()) - set(victims)) == 2, "there are other daemons")


def kill_everything(httpd: Httpd) -> None:
    httpd.kill_all()
    httpd.start()


ACTS = {
    "graceful reload": graceful,
    "stop, start": stop_and_start,
    "SIGKILL of one daemon": kill_a_daemon,
    "SIGKILL of all daemons": kill_all_daemons,
    "SIGKILL of httpd and all, start": kill_everything,
}


@pytest.mark.parametrize("name", ACTS)
def test_nothing_acknowledged_is_lost(httpd: Httpd, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = under_load(httpd, lambda: ACTS[name](httpd), name)
    with capsys.disabled():
        print(f"\n{said}", end="")


def test_a_reload_answers_pilots_that_wait(httpd: Httpd) -> None:
    """A pilot that waits for a job hears that there is none, and is not cut off."""
    answers = list[Any]()
    waiting = [
        threading.Thread(target=lambda: answers.append(httpd.call("pilot", "getJob", siteName="UTA", wait="30")))
        for _ in range(4)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(1)
    start = time.monotonic()
    graceful(httpd)
    for thread in waiting:
        thread.join()
    assert [answer["StatusCode"] for answer in answers] == [20] * 4
    assert time.monotonic() - start < 10


def test_a_worker_does_the_work_when_there_is_no_server(httpd: Httpd, url: str) -> None:
    """What requests left to be done is done by `panda-server work` while Apache is down."""
    load, database = Load(httpd), Database(url)
    with load.session("prodman") as session:
        told = {"jobs": [production_job(computingSite=QUEUE, Files=[]) for _ in range(50)]}
        ids = [entry[0] for entry in load.until_answered(session, "submitJobs", told)]
    httpd.kill_all()
    config = httpd.root / "etc/panda/panda_server.cfg"
    words = [sys.executable, "-m", "pandaserver.command", "work", "--config", str(config)]
    worker = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        states = lambda: {job.state for job in database.read(lambda c: jobs.load(c, ids)).values()}  # noqa: E731
        wait_until(lambda: states() == {JobState.ACTIVATED}, "all are activated")
    finally:
        worker.terminate()
        assert worker.wait(20) == 0
        database.close()
    httpd.start()
    assert httpd.state(ids[0]) == "activated"
