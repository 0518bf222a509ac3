"""What the real pilot does when the server kills, disowns, refuses, forgets or disappears."""

from __future__ import annotations

import json
import signal
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from integration.test_pilot_stub import TOKEN, alive, eventually, job, pilot, run_pilot, stub_server
from OpenSSL import crypto

pytestmark = pytest.mark.integration

KILL = {"StatusCode": 0, "command": "tobekilled"}
STALE = {"StatusCode": 30, "command": "tobekilled"}


@pytest.fixture
def stub(tmp_path):
    with stub_server(tmp_path) as server:
        yield server


@pytest.fixture
def work(tmp_path):
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def sleeper(stub, tmp_path):
    """A job that sleeps for long and tells its pid; returns a function that gives the pid."""
    path = tmp_path / "payload.pid"
    script = f"#!/bin/sh\necho working\necho $$ > {path}\nexec sleep 300\n"
    stub.jobs.append(job(1, stub.add_script("run.sh", script), heartbeatInterval=1))

    def pid() -> int:
        eventually(lambda: path.exists() and path.read_text())
        return int(path.read_text())

    return pid


def is_running(update: dict) -> bool:
    return update["state"] == "running"


def test_kill_command_stops_the_payload_and_stores_the_log(stub, work, sleeper):
    stub.update_hook = lambda update: (200, KILL) if is_running(update) and update["stdout"] else None
    run = run_pilot(stub, work)
    assert run.process.returncode == 0
    eventually(lambda: not alive(sleeper()))  # killed, and then gone a moment later
    assert (stub.final["state"], stub.final["pilotErrorCode"]) == ("failed", 1144)
    assert stub.log_members(1)["payload.stdout"] == b"working\n"
    assert len(stub.requests) == 2  # and asked for the next job


def test_kill_command_before_the_payload_starts_keeps_it_from_starting(stub, work, tmp_path, sleeper):
    stub.update_hook = lambda update: (200, KILL) if update["state"] == "starting" else None
    run_pilot(stub, work)
    assert stub.final["pilotErrorCode"] == 1144
    assert not (tmp_path / "payload.pid").exists()


def test_stale_attempt_is_stopped_and_neither_stored_nor_reported(stub, work, sleeper):
    stub.update_hook = lambda update: (200, STALE) if is_running(update) else None
    run = run_pilot(stub, work)
    assert run.process.returncode == 0
    assert {update["state"] for update in stub.updates} == {"starting", "running"}
    assert not stub.storage.exists()
    assert list(work.iterdir()) == []


def test_lost_lease_stops_the_payload_before_its_end(stub, work, sleeper):
    stub.jobs[0]["leaseTime"] = 3
    moments: list[float] = []

    def hook(update):
        if is_running(update):
            moments.append(time.monotonic())
            return 503, {}
        if update["state"] == "starting":
            moments[:] = [time.monotonic()]
        return None

    stub.update_hook = hook
    run_pilot(stub, work)
    assert (stub.final["state"], stub.final["pilotErrorCode"]) == ("failed", 1144)
    assert "lease" in stub.final["pilotErrorDiag"]
    assert json.loads(stub.final["xml"]) == {}
    eventually(lambda: not alive(sleeper()))  # killed, and then gone a moment later
    assert len(moments) > 2  # it kept trying
    assert moments[-1] - moments[0] < 3


def test_heartbeats_come_in_their_interval_and_carry_the_state_of_affairs(stub, work):
    script = "#!/bin/sh\nprintf 'one\\033[2J\\ntwo\\n'; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1.5\n"
    stub.jobs.append(job(1, stub.add_script("run.sh", script)))
    run_pilot(stub, work, "--heartbeat=0.4")
    beats = [update for update in stub.updates if is_running(update)]
    assert len(beats) >= 4
    assert beats[-1]["cpuConsumptionTime"] > 0 and beats[-1]["maxRSS"] > 0
    assert beats[-1]["stdout"] == "one?[2J\ntwo\n"
    assert stub.final["cpuConsumptionTime"] > 0


def test_server_that_is_restarted_during_the_job_hears_of_its_end(stub, work, tmp_path):
    started = tmp_path / "started"
    script = f"#!/bin/sh\ntouch {started}; sleep 0.5; echo x > out\n"
    stub.jobs.append(job(1, stub.add_script("run.sh", script), outputs="out", heartbeatInterval=1))
    with pilot(stub, work) as running:
        eventually(started.exists)
        stub.stop()
        eventually(stub.place("out").exists)
        time.sleep(1)
        stub.start()
        assert running.wait() == 0
    assert stub.final["state"] == "finished"
    assert set(json.loads(stub.final["xml"])) == {"out", "job.1.log.tgz"}
    assert "final report not delivered" in running.log


def test_final_report_is_repeated_after_server_errors(stub, work):
    tries = []

    def hook(update):
        if update["state"] == "finished" and len(tries) < 2:
            tries.append(update)
            return 503, {}
        return None

    stub.update_hook = hook
    stub.jobs.append(job(1, "true"))
    assert run_pilot(stub, work).process.returncode == 0
    assert tries == [stub.final] * 2


def test_report_that_is_too_large_is_sent_without_the_payloads_texts(stub, work):
    stub.update_hook = lambda update: (413, {}) if update.get("metaData") else None
    script = "#!/bin/sh\necho '{\"exitCode\": 0}' > jobReport.json\n"
    stub.jobs.append(job(1, stub.add_script("run.sh", script)))
    run_pilot(stub, work)
    assert stub.final["state"] == "finished"
    assert "metaData" not in stub.final
    assert "job.1.log.tgz" in json.loads(stub.final["xml"])


def test_report_without_any_answer_is_given_up_after_its_time(stub, work):
    stub.update_hook = lambda update: (503, {}) if update["state"] == "finished" else None
    stub.jobs.append(job(1, "true"))
    run = run_pilot(stub, work, "--final-update-time=2")
    assert "could not be delivered" in run.log
    assert run.process.returncode == 0


def test_getjob_without_an_answer_is_repeated_with_the_same_request(stub, work):
    lost = []

    def hook(request):
        if not lost:
            lost.append(request["requestId"])
            raise ConnectionAbortedError

    stub.get_job_hook = hook
    stub.jobs += [job(1, "true"), job(2, "true")]
    run_pilot(stub, work, "--max-jobs=1")
    assert [request["requestId"] for request in stub.requests] == lost * 2
    assert stub.final["jobId"] == "1"
    assert len(stub.jobs) == 1


def test_jobs_follow_each_other_until_there_are_none(stub, work):
    stub.jobs += [job(number, "true") for number in (1, 2, 3)]
    assert run_pilot(stub, work).process.returncode == 0
    assert [update["jobId"] for update in stub.updates if update["state"] == "finished"] == ["1", "2", "3"]
    assert len({request["requestId"] for request in stub.requests}) == 4
    assert b"job 1:" not in stub.log_members(2)["pilot.log"]


def test_idle_pilot_keeps_asking_for_its_idle_time(stub, work):
    assert run_pilot(stub, work, "--idle-time=1").process.returncode == 0
    assert 3 <= len(stub.requests) <= 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1201), (signal.SIGXCPU, 1204)])
def test_signal_to_the_pilot_fails_the_job_at_once(stub, work, sleeper, number, code):
    with pilot(stub, work) as running:
        sleeper()
        running.process.send_signal(number)
        begun = time.monotonic()
        assert running.wait() == 128 + number
        assert time.monotonic() - begun < 8
    assert (stub.final["state"], stub.final["pilotErrorCode"]) == ("failed", code)
    assert "job.1.log.tgz" in json.loads(stub.final["xml"])
    eventually(lambda: not alive(sleeper()))  # killed, and then gone a moment later
    assert list(work.iterdir()) == []


def test_signal_while_waiting_for_a_job_ends_the_pilot(stub, work):
    with pilot(stub, work, "--idle-time=60") as running:
        eventually(lambda: stub.requests)
        running.terminate()
        assert running.wait() == 143
    assert stub.updates == []


def test_signal_while_reporting_a_finished_job_does_not_fail_it(stub, work):
    refused = []

    def hook(update):
        if update["state"] == "finished" and len(refused) < 2:
            refused.append(update)
            return 503, {}
        return None

    stub.update_hook = hook
    stub.jobs.append(job(1, "true"))
    with pilot(stub, work) as running:
        eventually(lambda: refused)
        running.terminate()
        assert running.wait() == 143
    assert stub.final["state"] == "finished"


def test_job_without_a_token_ends_the_pilot(stub, work):
    stub.jobs.append({**job(1, "true"), "jobToken": None})
    run = run_pilot(stub, work)
    assert run.process.returncode == 72
    assert "jobToken" in run.log


def test_queue_offline_unknown_or_forbidden_is_told_by_the_exit_code(stub, work):
    stub.queue["status"] = "offline"
    assert run_pilot(stub, work).process.returncode == 71
    stub.queue["status"] = "online"
    assert run_pilot(stub, work, "--queue=OTHER").process.returncode == 70
    stub.jobs.append({"StatusCode": 70, "message": "no pilot role"})
    run = run_pilot(stub, work)
    assert run.process.returncode == 69
    assert "no pilot role" in run.log


def test_unreachable_server_is_told_by_the_exit_code(stub, work):
    stub.stop()
    run = run_pilot(stub, work)
    stub.start()
    assert run.process.returncode == 68
    assert "no answer from localhost" in run.log


def test_dry_run_shows_the_queue_and_takes_no_job(stub, work):
    stub.queue["maxrss"] = 2000
    stub.jobs.append(job(1, "true"))
    plan = json.loads(run_pilot(stub, work, "--dry-run").out)
    assert plan["queue"]["max_memory_mb"] == 2000
    assert "STUB_DISK" in plan["endpoints"]
    assert stub.requests == []


def test_plain_http_needs_the_flag(stub, work):
    run = run_pilot(stub, work, "--server=http://panda.example.org:25080")
    assert run.process.returncode == 2
    assert "use https" in run.log


def certificate(name, *, issuer=None, ca=False, days=1):
    """Make a certificate and its key; returns (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer_name, signer_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(signer_key, hashes.SHA256()), key


def pem(*parts) -> bytes:
    text = b""
    for part in parts:
        if isinstance(part, x509.Certificate):
            text += part.public_bytes(serialization.Encoding.PEM)
        else:
            form = serialization.PrivateFormat.PKCS8
            text += part.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text


class Grid:
    """A CA with a host certificate, users, and its directory with the hashed name."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = certificate("Test CA", ca=True)
        self.ca_directory = directory / "certificates"
        self.ca_directory.mkdir(parents=True)
        number = crypto.X509.from_cryptography(self.ca[0]).subject_name_hash()
        (self.ca_directory / f"{number:08x}.0").write_bytes(pem(self.ca[0]))
        (directory / "host.pem").write_bytes(pem(*certificate("localhost", issuer=self.ca)))

    def user(self, name, **more):
        path = self.directory / f"{name}.pem"
        path.write_bytes(pem(*certificate(name, issuer=self.ca, **more)))
        path.chmod(0o600)
        return path

    def wrap(self, socket):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "host.pem")
        context.load_verify_locations(capath=str(self.ca_directory))
        context.verify_mode = ssl.CERT_OPTIONAL
        return context.wrap_socket(socket, server_side=True)


@pytest.fixture
def grid(tmp_path):
    return Grid(tmp_path / "grid")


def test_https_with_a_proxy_shows_the_proxy_to_the_server(grid, tmp_path, work):
    with stub_server(tmp_path, wrap=grid.wrap) as stub:
        stub.jobs.append(job(1, stub.add_script("run.sh", "#!/bin/sh\nenv\n")))
        environment = {
            "X509_USER_PROXY": str(grid.user("alice")),
            "X509_CERT_DIR": str(grid.ca_directory),
            "REQUESTS_CA_BUNDLE": "/dev/null",
            "https_proxy": "http://localhost:1",
        }
        run = run_pilot(stub, work, environment=environment)
        assert run.process.returncode == 0, run.log
        assert stub.final["state"] == "finished"
        assert "X509" not in stub.final["stdout"]
        assert all(dict(pair[0] for pair in peer["subject"])["commonName"] == "alice" for peer in stub.peers)


def test_proxy_is_shown_to_no_other_server(grid, tmp_path, work):
    with stub_server(tmp_path / "a", wrap=grid.wrap) as stub, stub_server(tmp_path / "b", wrap=grid.wrap) as other:
        stub.jobs.append(job(1, other.add_script("run.sh", "#!/bin/sh\ntrue\n")))
        run_pilot(stub, work, f"--proxy={grid.user('alice')}", f"--ca-dir={grid.ca_directory}")
        assert stub.final["state"] == "finished"
        assert other.peers == [None] or other.peers == [{}]


def test_tls_trouble_is_told_by_the_exit_code(grid, tmp_path, work):
    stranger = Grid(tmp_path / "stranger")
    user = grid.user("alice")
    with stub_server(tmp_path, wrap=grid.wrap) as stub:
        run = run_pilot(stub, work, f"--proxy={user}", f"--ca-dir={stranger.ca_directory}")
        assert run.process.returncode == 67
        assert "--ca-dir" in run.log or "CA directory" in run.log
        expired = grid.user("late", days=-1)
        run = run_pilot(stub, work, f"--proxy={expired}", f"--ca-dir={grid.ca_directory}")
        assert run.process.returncode == 65
        assert "expired" in run.log
        run = run_pilot(stub, work, f"--proxy={stranger.user('eve')}", f"--ca-dir={grid.ca_directory}")
        assert run.process.returncode == 67
        run = run_pilot(stub, work, f"--proxy={tmp_path}/none", f"--ca-dir={grid.ca_directory}")
        assert run.process.returncode == 65
        run = run_pilot(stub, work, f"--proxy={user}", f"--ca-dir={tmp_path}/none")
        assert run.process.returncode == 66
        assert TOKEN not in run.log
