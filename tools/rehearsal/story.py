"""The story of the rehearsal: install, a first job, upgrade under load, restore, two front ends."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.disk import INSIDE
from rehearsal.machine import RehearsalError, end
from rehearsal.stage import PANDA, USER, Stage

_AUTHORITIES = "/etc/grid-security/certificates"
_CURL = f"curl --silent --show-error --fail --capath {_AUTHORITIES}"
_ALICE_DN = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
_FINISH_S = 180.0
_FRONTS = {"front1": (25444, 25081), "front2": (25445, 25082)}

Numbers = dict[str, Any]


def expect(good: object, what: str) -> None:
    """Stop where something is not as it should be.

    Raises:
        RehearsalError: it is not.
    """
    if not good:
        raise RehearsalError(f"not as it should be: {what}")


def install(stage: Stage) -> None:
    """Section 1, from the first package to a server that answers."""
    stage.transcript.note("the machine starts, without a network")
    stage.do("systemctl boot")
    for name in ("panda", "database", "install", "configure", "queue"):
        stage.block(name)
    alive = stage.block("start")[-1]
    expect(alive == "alive=yes", f"isAlive says {alive!r}")
    stage.transcript.note("what the page says without a command: units, reload, monitor, plain reading, log rotation")
    stage.do("systemd-analyze verify /etc/systemd/system/panda-*.service /etc/systemd/system/panda-*.timer")
    stage.do("systemctl start panda-reload.service")
    stage.do(f"{_CURL} --output /dev/null --write-out '%{{http_code}}\\n' https://panda.example.org/")
    stage.do(f"{_CURL} http://panda.example.org:25080/server/panda/isAlive; echo")
    stage.do("logrotate --force /etc/logrotate.d/panda && ls -l /var/log/panda")


def first_job(stage: Stage) -> Numbers:
    """Pilots, and a user with a VOMS proxy and curl."""
    stage.block("pilots")
    stage.transcript.note(f"{USER} has an account, and a proxy with VOMS attributes where voms-proxy-init puts it")
    stage.do(f"useradd --create-home {USER}")
    stage.do(f"install -m 600 -o {USER} ~/pki/voms/default.pem /tmp/x509up_u$(id -u {USER})")
    said = stage.block("job", USER)
    expect("/testvo" in said[4], "the server sees the VOMS group")
    (job,) = stage.jobs([1])
    expect(job["jobStatus"] == "finished", f"the job is {job['jobStatus']}: {job}")
    expect((job["prodUserID"], job["VO"]) == (_ALICE_DN, "testvo"), f"the job belongs to {job['prodUserID']}")
    (file,) = json.loads(said[-1])
    path = file["replicas"][0]["url"].removeprefix("file://")
    stage.do(f"cat {path}")
    stage.transcript.note("what a payload may not read")
    for secret in ("/etc/panda/panda_server.cfg", "/etc/panda/robotkey.pem"):
        stage.do(f"runuser -u panda-pilot -- cat {secret}", exit_code=1)
    return {"job": 1, "state": job["jobStatus"], "vo": job["VO"], "output": Path(path).name}


def without_root(stage: Stage) -> None:
    """An Apache of the user's own, in a folder."""
    for name in ("hostcert.pem", "hostkey.pem"):
        stage.do(f"install -m 600 -o {USER} ~/pki/{name} /home/{USER}/{name}")
    stage.block("prefix", USER)
    stage.block("prefix-start", USER)
    stage.do(f"{_CURL} --retry 5 --retry-connrefused https://localhost:26443/server/panda/isAlive; echo", USER)
    stage.do("/usr/sbin/apache2 -f ~/panda/etc/panda/httpd.conf -k stop", USER)


@dataclass
class Load:
    """Jobs that come all the time, with pilots that run them."""

    ids: list[int]
    repeats: int = 0


@contextmanager
def load(stage: Stage) -> Iterator[Load]:
    """Submit all the time, by a program that repeats what is not answered; at the end its numbers are there."""
    flag = "/tmp/load-goes-on"
    stage.machine.run("touch", flag)
    stage.transcript.note(f"{USER} submits jobs all the time, pilots run them")
    python = ["env", f"PYTHONPATH={INSIDE}", "/opt/panda-pilot/bin/python", "-m", "rehearsal.submitter"]
    proxy = stage.machine.run("sh", "-c", f"echo /tmp/x509up_u$(id -u {USER})").strip()
    told = ["--server", PANDA, "--proxy", proxy, "--ca-dir", _AUTHORITIES, "--while", flag]
    script = f"{PANDA}/cache/hello.sh"
    process = stage.machine.spawn(*python, *told, "--transformation", script, user=USER)
    found = Load([])
    try:
        yield found
        stage.machine.run("rm", flag)
        output, _ = process.communicate(timeout=60)
        if process.returncode:
            raise RehearsalError(f"the submitter failed: {output}")
        said = json.loads(output)
        found.ids, found.repeats = said["ids"], said["repeats"]
    except subprocess.TimeoutExpired as error:
        raise RehearsalError("the submitter does not end") from error
    finally:
        end(process)


def all_done(stage: Stage, load: Load) -> Numbers:
    """Wait until every job that was acknowledged is finished, at the first attempt.

    Raises:
        RehearsalError: one is lost, failed, or was done twice.
    """
    wanted = len(load.ids)
    stage.wait(
        lambda: sum(job["jobStatus"] in ("finished", "failed") for job in stage.jobs(load.ids)) == wanted,
        f"{wanted} jobs have ended", _FINISH_S,
    )  # fmt: skip
    jobs = stage.jobs(load.ids)
    states = Counter(job["jobStatus"] for job in jobs)
    attempts = Counter(job["attemptNr"] for job in jobs)
    numbers = {"acknowledged": wanted, "lost": wanted - len(jobs), "states": dict(states), "attempts": dict(attempts),
               "submissions_repeated": load.repeats}  # fmt: skip
    stage.transcript.note(f"all submissions that were acknowledged: {numbers}")
    expect(states["finished"] == wanted and len(attempts) == 1, "every job finished at its first attempt")
    expect(len(set(load.ids)) == wanted, "no job was given twice")
    return numbers


def upgrade(stage: Stage) -> Numbers:
    """Section 3, with users and pilots at work."""
    with load(stage) as running:
        stage.block("upgrade")
        stage.block("change-over")
        stage.do("sleep 5")
        stage.block("go-back")
        stage.do("sleep 5")
        stage.transcript.note("and forward again")
        stage.block("change-over")
        stage.do("sleep 5")
        stage.block("last-step")
    numbers = all_done(stage, running)
    used = "grep -l /opt/panda-0.2.0/lib /proc/[0-9]*/maps 2>/dev/null | wc -l"
    expect(int(stage.do(f"{used}").split()[0]) > 0, "the new version runs")
    left = "grep -l '/opt/panda-0.1.0/lib' /proc/[0-9]*/maps 2>/dev/null"
    stage.do(left, exit_code=1)
    no_faults(stage)
    return numbers


def no_faults(stage: Stage) -> None:
    """See that the server has written of no fault of its own."""
    stage.do("grep -E ' (ERROR|CRITICAL) |Traceback' /var/log/panda/server.log*", exit_code=1)


def backup_and_restore(stage: Stage) -> Numbers:
    """Section 4, with everything lost in between."""
    stage.block("backup")
    before = stage.jobs([1])
    stage.transcript.note("everything is lost")
    stage.do("mariadb --execute 'DROP DATABASE panda'")
    stage.do("rm -r /var/lib/panda/cache /etc/panda")
    stage.block("restore")
    stage.transcript.note("what the server wrote while it had no database is put aside")
    stage.do("rm /var/log/panda/server.log*")
    stage.wait(lambda: bool(stage.jobs([1])), "the server answers")
    expect(stage.jobs([1]) == before, "the job is there as before")
    stage.transcript.note("the first job is there as before; and a new one, with the old script:")
    with load(stage) as running:
        stage.do("sleep 3")
    return all_done(stage, running)


def front_ends(stage: Stage) -> Numbers:
    """Section 5: two front ends behind a balancer, one of them dies."""
    stage.do("systemctl stop apache2")
    for name, (tls, plain) in _FRONTS.items():
        folder = f"/srv/{name}"
        stage.do(f"mkdir -p {folder}/etc && cp -a /etc/panda {folder}/etc/")
        ports = f"--address 127.0.0.1 --tls-port {tls} --plain-port {plain}"
        stage.do(f"panda-server install --server-name panda.example.org --prefix {folder} {ports}")
        stage.do(f"apache2 -f {folder}/etc/panda/httpd.conf -k start")
    ports = " ".join(str(tls) for tls, _ in _FRONTS.values())
    stage.do(f"PYTHONPATH={INSIDE} python3 -m rehearsal.balancer --port 25443 {ports} > /dev/null 2>&1 &")
    stage.do(f"{_CURL} --retry 9 --retry-connrefused {PANDA}/server/panda/isAlive; echo")
    with load(stage) as running:
        stage.wait(lambda: all(requests_at(stage, name) for name in _FRONTS), "both front ends are asked")
        asked = {name: requests_at(stage, name) for name in _FRONTS}
        stage.transcript.note(f"both have been asked: {asked}; and one dies")
        stage.do("kill -KILL -- -$(cat /srv/front1/run/apache2/httpd.pid); sleep 8")
        stage.do(f"{_CURL} http://127.0.0.1:25081/server/panda/isAlive", exit_code=7)
    return all_done(stage, running)


def requests_at(stage: Stage, front: str) -> int:
    """Count the calls that a front end has answered."""
    log = f"/srv/{front}/var/log/apache2/panda-access.log"
    return int(stage.machine.run("sh", "-c", f"cat {log} 2>/dev/null | grep --count /server/panda/ || true"))


def last_look(stage: Stage) -> None:
    """See that nothing of the page was left out, and that the server's log has no fault in it."""
    left = set(stage.left_out()) - {"packages"}
    expect(not left, f"these blocks of the page were not rehearsed: {', '.join(left)}")
    no_faults(stage)
