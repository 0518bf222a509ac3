"""A private Apache with PanDA in it, as `panda-server install --prefix` puts it in place, asked by curl."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories

from benchmark import apache
from benchmark.apache import ROOT as ROOT
from benchmark.apache import USER as USER
from benchmark.apache import Apache, Ports, give_to_server

SERVER_PANDA = "/server/panda"
PATIENCE_S = 60.0
CURL = ("curl", "-sS", "-q", "--noproxy", "*", "-m", "60", "-w", "\n%{http_code}")


@dataclass(frozen=True)
class Answer:
    """What curl saw; code 0 is a good connection, whatever the status."""

    code: int
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Front:
    """A front end, and the certificates with which to ask it."""

    port: int
    pki: Path

    def curl(self, path: str, *arguments: str, who: str | None = None, base: str = "") -> Answer:
        """Ask as somebody: the name of a proxy, or creds/NAME."""
        shown = ["--cert", str(self.pki / f"{who}.pem"), "--key", str(self.pki / f"{who}.pem")] if who else []
        options = [*CURL, "--cacert", str(self.pki / "ca.pem")]
        address = (base or f"https://localhost:{self.port}") + path
        words = [*options, *shown, *arguments, address]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        text, _, status = done.stdout.rpartition("\n")
        return Answer(done.returncode, int(status or 0), text if not done.returncode else done.stderr)

    def call(self, who: str | None, method: str, **told: Any) -> Any:
        """Make a call with form fields by curl; give the answer's JSON, which must be good."""
        fields = [f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in told.items()]
        words = [word for field in fields for word in ("--data-urlencode", field)]
        answer = self.curl(f"{SERVER_PANDA}/{method}", *(words or ["--data", ""]), who=who)
        assert (answer.code, answer.status) == (0, 200), answer
        return answer.json


@dataclass(frozen=True)
class Httpd(Front):
    """An Apache of our own, in a folder of our own."""

    root: Path
    plain_port: int
    monitor_port: int | None

    @property
    def apache(self) -> Apache:
        return Apache(self.root)

    @property
    def plain(self) -> str:
        return f"http://localhost:{self.plain_port}"

    def control(self, action: str, *more: str) -> None:
        """Start, stop or reload it, as apachectl would."""
        subprocess.run(self.apache.command(action, *more), check=True, capture_output=True)

    def start(self, *more: str) -> None:
        self.control("start", *more)
        self.wait_until_up()

    def stop(self) -> None:
        pid = self.pid()
        self.control("stop")
        wait_until(lambda: not is_running(pid), "Apache ends")

    def wait_until_up(self) -> None:
        wait_until(lambda: self.curl(f"{SERVER_PANDA}/isAlive").status == 200, "Apache answers", log=self.log)

    def pid(self) -> int:
        return self.apache.pid()

    def daemons(self) -> list[int]:
        return self.apache.daemons()

    def kill_all(self) -> None:
        """What a power cut or an angry operator does."""
        found = self.apache.processes()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, found)), "killed processes end")
        (self.root / "run/apache2/httpd.pid").unlink(missing_ok=True)

    def log(self) -> str:
        return self.apache.log()

    def access_log(self) -> str:
        return (self.root / "var/log/apache2/panda-access.log").read_text()

    def store(self, endpoint: str, scope: str, lfn: str) -> dict[str, Any]:
        """Put a file where a pilot puts it; give what the pilot reports."""
        digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
        folder = self.root / "etc/panda" / endpoint / scope.replace(".", "/") / digest[:2] / digest[2:4]
        folder.mkdir(parents=True, exist_ok=True)
        content = f"made {lfn}".encode()
        (folder / lfn).write_bytes(content)
        give_to_server(self.root / "etc/panda" / endpoint)
        guid = f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"
        facts = {"guid": guid, "fsize": len(content), "adler32": f"{zlib.adler32(content):08x}"}
        return facts | {"surl": f"file://{folder / lfn}", "endpoint": endpoint}

    def run_job(self, job: dict[str, Any]) -> None:
        """Be a good pilot by curl: store what a job makes, and report."""
        known = {"jobId": str(job["PandaID"]), "attemptNr": str(job["attemptNr"]), "jobToken": job["jobToken"]}
        self.call("pilot", "updateJob", state="running", **known)
        self.call("pilot", "updateJob", state="finished", xml=json.dumps(self.outputs(job)), **known)

    def outputs(self, job: dict[str, Any]) -> dict[str, Any]:
        """Store the outputs and the log of a job."""
        scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
        pairs = zip(scopes, job["outFiles"].split(","), strict=True)
        endpoint = job["ddmEndPointOut"].split(",")[0]
        return {lfn: self.store(endpoint, scope, lfn) for scope, lfn in pairs}

    def state(self, job_id: int) -> str:
        (told,) = self.call(None, "getJobStatus", ids=str(job_id))
        return str(told["jobStatus"])

    def wait_for(self, job_id: int, *states: str) -> None:
        wait_until(lambda: self.state(job_id) in states, f"job {job_id} is {' or '.join(states)}", log=self.log)


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(good: Any, what: str, *, log: Any = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < end, f"not in {PATIENCE_S:.0f} s: {what}\n{log() if log else ''}"
        time.sleep(0.05)


def prepare(root: Path, pki: factories.Pki, database_url: str, ports: Ports) -> Httpd:
    """Put everything in place as an operator does: configuration, tables, `panda-server install`."""
    own = root / "etc/panda"
    shutil.copytree(pki.directory, root / "pki")
    (root / "pki").chmod(0o755)
    here = factories.Pki(root / "pki", pki.dns)
    config = factories.write_config(own, here, database_url, port=ports.tls, work_lease_s=3)
    config.chmod(0o640)
    for name in ("cache", "BNL_DISK", "UTA_DISK"):
        (own / name).mkdir()
    for path in (config, own / "cache", own / "BNL_DISK", own / "UTA_DISK", here.proxy("ddm")):
        give_to_server(path)
    (own / "monitor.cfg").write_text(f"[monitor]\ndatabase = {database_url}\nserver_config = {config}\ncache_s = 0\n")
    factories.prepare(database_url)
    command(root, "install", *install_options(root, ports))
    return Httpd(ports.tls, here.directory, root, ports.plain, ports.monitor)


def install_options(root: Path, ports: Ports) -> list[str]:
    return apache.install_options(root, ports, root / "pki")


def command(root: Path, *words: str, expect: int = 0) -> str:
    """Run panda-server of this tree."""
    done = apache.panda_server(root, *words)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def private_httpd(pki: factories.Pki, database_url: str, ports: Ports) -> Iterator[Httpd]:
    """Run one in a folder that its user can reach; it ends with all its processes."""
    with factories.open_folder() as root:
        httpd = prepare(root, pki, database_url, ports)
        try:
            httpd.start()
            yield httpd
        finally:
            httpd.kill_all()
