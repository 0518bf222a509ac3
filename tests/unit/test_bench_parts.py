"""The parts of the benchmark: what it counts, what it sends, how it fills tables, how it sums up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import (
    brokerage,
    calls,
    claim,
    claimer,
    drive,
    fill,
    floor,
    inside,
    life,
    load,
    longpoll,
    messages,
    profiler,
    show,
)  # fmt: skip
from benchmark.door import CONNECTIONS, Door
from benchmark.load import Client, Part, Plan, Seen, clients_of, perform, read_plan
from benchmark.processes import BenchError, Meter, Usage, kind_of, read_stat, session, stop_session
from benchmark.quantiles import quantile, summary_ms
from benchmark.wire import Address, Wire, WireError, read_answer
from pandaserver.errors import PandaError
from pandaserver.model.attempt import ClaimRequest
from pandaserver.taskbuffer import schema
from pandaserver.userinterface.submit import check
from pandaserver.web.jobwire import read_jobs
from pandaserver.web.pilotwire import read_claim, read_report

PLAIN = Door()

# --- quantiles


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_the_smallest_value_that_enough_are_not_above(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_no_values_sum_up_to_zero() -> None:
    assert summary_ms([]) == {"count": 0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}


def test_latencies_are_summed_up_in_milliseconds() -> None:
    told = summary_ms([n / 1000 for n in range(100, 0, -1)])
    assert told == {"count": 100, "p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


# --- CPU time


def test_stat_lines_with_strange_names_are_read() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    stat = read_stat("42 (a) b ( c) S 1 40 39 0 -1 4194304 1 2 3 4 100 50 7 3 20 0 1 0 5 6 7")
    assert stat.session == 39
    assert stat.own_s == pytest.approx(150 * tick)
    assert stat.ended_children_s == pytest.approx(10 * tick)


def test_this_process_is_in_its_session() -> None:
    assert os.getpid() in session(os.getsid(0))


def test_a_meter_sees_what_is_used() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        meter = Meter(web=busy.pid, db=0)
        before = meter.read()
        while (used := meter.read() - before).web_s < 0.05:
            assert busy.poll() is None
            time.sleep(0.01)
    finally:
        stop_session(busy, patience_s=5)
    assert used.db_s == 0
    assert used.threads["main"] > 0
    assert used.total_s == used.web_s


@pytest.mark.parametrize(
    ("name", "kind"),
    [("work_0\n", "work"), ("duties", "duties"), ("ThreadPoolExec-0_12", "ThreadPoolExec"), ("7", "other")],
)
def test_threads_of_a_pool_have_one_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_usage_is_shared_out_and_added() -> None:
    first = Usage(3.0, 1.0, 2.0, {"work": 1.0, "web": 2.0})
    second = Usage(1.0, 0.5, 1.0, {"work": 0.5})
    assert (first - second).front_s == 1.5
    assert (first + second).total_s == 7.0
    assert (first + second).threads == {"work": 1.5, "web": 2.0}
    assert first.per(10).threads == {"work": 0.1, "web": 0.2}
    assert first.per(0).total_s == first.total_s


# --- the light client


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server of one connection after the other: each answer is sent for one request, b"" closes instead."""
    seen: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        left = list(answers)
        while left:
            connection, _ = listener.accept()
            with connection:
                while left and (request := connection.recv(65536)):
                    seen.append(request)
                    answer = left.pop(0)
                    for byte in (answer[:7], answer[7:]):
                        connection.sendall(byte)
                    if not answer:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], seen
        thread.join(5)


OK = b'HTTP/1.1 200 OK\r\ncontent-LENGTH: 17\r\n\r\n{"StatusCode": 0}'


def test_a_connection_is_used_again() -> None:
    with answering(OK, OK) as (port, seen):
        wire = Wire(Address(port), "alice", None)
        assert [wire.post("/x", b"{}"), wire.get("/y")] == [(200, b'{"StatusCode": 0}')] * 2
        wire.close()
    assert wire.reconnects == 0
    assert seen[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"X-Bench-Person: alice\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\n{}")
    assert seen[1].startswith(b"GET /y ")


def test_an_old_connection_that_was_closed_is_opened_again() -> None:
    with answering(OK, b"", OK) as (port, seen):
        wire = Wire(Address(port), "alice", None)
        assert [wire.get("/x")[0], wire.get("/x")[0]] == [200, 200]
        wire.close()
    assert wire.reconnects == 1
    assert len(seen) == 3


def test_every_request_has_its_connection_where_that_is_asked_for() -> None:
    with answering(OK, b"", OK, b"") as (port, seen):
        wire = Wire(Address(port, keep_alive=False), "pilot", None)
        assert wire.get("/x")[0] == 200
        with pytest.raises((WireError, OSError)):
            wire.get("/x")  # a fresh connection that is closed is no reason to try again
        assert wire.get("/x")[0] == 200
        with pytest.raises((WireError, OSError)):
            wire.get("/x")
    assert all(b"Connection: close\r\n" in request for request in seen)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b""]
)
def test_answers_that_are_cut_are_no_answers(answer: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(answer)
        there.close()
        with pytest.raises(WireError):
            read_answer(here)


# --- what is said


def test_the_server_accepts_the_jobs() -> None:
    told = messages.submission(3)
    for number, job in enumerate(read_jobs(told["jobs"])):
        check(job, number, {"BENCH_000"})
        assert job.production
        assert (job.memory_mb, job.disk_mb) == (messages.MEMORY_MB, messages.DISK_MB)
    assert told["clientKey"] != messages.submission(3)["clientKey"]


def test_the_server_understands_the_pilot() -> None:
    request = read_claim(messages.request_for("BENCH_000"), "/CN=pilot")
    assert request.queue == "BENCH_000"
    assert request.memory_mb >= messages.MEMORY_MB
    assert request.request_id
    job = {"PandaID": 7, "attemptNr": 1, "jobToken": "x"}
    assert read_report(messages.word(job, "running"), "/CN=pilot").state == "running"
    last = read_report(messages.last_word(job, "DISK", ["a.root", "a.log"]), "/CN=pilot")
    assert [output.lfn for output in last.outputs] == ["a.root", "a.log"]
    assert last.outputs[0].size_bytes == len(messages.CONTENT)
    assert last.metadata
    assert last.log_extract


@pytest.mark.parametrize("more", claimer.filters().values(), ids=str)
def test_filters_ask_for_less_than_any_job_wants(more: dict[str, Any]) -> None:
    request = read_claim(messages.request_for("Q", **more), "")
    limits = [(request.memory_mb, messages.MEMORY_MB), (request.remaining_s, messages.WALL_TIME_S)]
    assert any(limit < wanted for limit, wanted in limits) or request.labels == ("nobody",)


def test_asking_for_a_user_is_there_or_is_said_to_be_missing() -> None:
    try:
        assert "nobody" in str(inside.asking_for_owner(ClaimRequest(queue="Q"), "nobody"))
    except BenchError as error:
        assert str(error) == inside.NOT_THERE


# --- plans


def a_plan(*parts: Part) -> Plan:
    return Plan(address=Address(1), parts=list(parts), queues=["A", "B"], endpoint="DISK", storage="/nowhere")


def test_a_plan_travels_as_json() -> None:
    plan = a_plan(Part(name="x", clients=3, seconds=1.0, requests=[["/x", {}]]))
    assert read_plan(json.loads(json.dumps(asdict(plan)))) == plan


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 40))
def test_a_plan_is_shared_out_without_loss(clients: int, processes: int, requests: int) -> None:
    told = [["/x", number] for number in range(requests)]
    plan = a_plan(Part(name="x", clients=clients, seconds=1.0, requests=told, rate=10.0))
    shares = drive.share(plan, processes)
    parts = [part for one in shares for part in one.parts]
    assert sum(part.clients for part in parts) == clients
    assert sum(part.rate for part in parts) == pytest.approx(10.0)
    assert sorted(request[1] for part in parts for request in part.requests) == list(range(requests))


@given(st.integers(1, 7), st.integers(0, 30))
def test_clients_send_every_request_once(clients: int, requests: int) -> None:
    told = [["/x", number] for number in range(requests)]
    made = clients_of(a_plan(Part(name="x", clients=clients, seconds=1.0, requests=told)))
    sent = [request[1] for client in made for request in client.part.requests[client.number % clients :: clients]]
    assert sorted(sent) == list(range(requests))


def client(port: int, **more: Any) -> Client:
    part = Part(**({"name": "x", "clients": 1, "seconds": 5.0, "requests": [["/x", {}]]} | more))
    return Client(a_plan(part), part, 0, Wire(Address(port), "pilot", None))


def test_a_client_notes_latencies_and_jobs() -> None:
    body = b'{"StatusCode": 0, "PandaID": 5}'
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as (port, _):
        seen = client(port).run()
    assert len(seen.latencies["x"]) == 1
    assert seen.got[0][0] == 5
    assert seen.ended > seen.started
    assert not seen.problems


def test_a_client_notes_refusals_and_goes_on() -> None:
    refusal = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"StatusCode": 30}'
    with answering(refusal, OK) as (port, _):
        seen = client(port, requests=[["/x", {}], ["/x", {}]]).run()
    assert len(seen.latencies["x"]) == 2
    assert sum(seen.problems.values()) == 1
    assert "30" in next(iter(seen.problems))


def test_a_client_gives_up_when_nothing_works() -> None:
    seen = client(1, requests=[["/x", {}]] * 1000).run()
    assert 1 < sum(seen.problems.values()) < 100


def test_a_pilot_without_jobs_asks_every_queue_once() -> None:
    none = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"StatusCode": 20}'
    with answering(none, none) as (port, asked):
        seen = client(port, lives=True).run()
    assert seen.empty == 2
    assert seen.lives == 0
    assert [b'"siteName": "A"' in asked[0], b'"siteName": "B"' in asked[1]] == [True, True]


def test_clients_with_a_pace_keep_to_it() -> None:
    with answering(*[OK] * 5) as (port, _):
        plan = a_plan(Part(name="x", clients=1, seconds=0.45, requests=[["/x", {}]], again=True, rate=10.0))
        told = perform(Plan(**vars(plan) | {"address": Address(port)}), ready=lambda: None)
    assert len(told["latencies"]["x"]) == 5
    assert told["ended"] - told["started"] < 1.0
    assert told["cpu_s"] > 0


def test_what_processes_saw_is_added_up() -> None:
    def told(started: float, lives: int) -> dict[str, Any]:
        seen = Seen(started=started, ended=started + 2, lives=lives, problems=Counter({"p": 1}))
        seen.latencies["x"].append(0.1)
        return json.loads(json.dumps(vars(seen) | {"cpu_s": 0.5}))  # type: ignore[no-any-return]

    load = drive.add_up([told(10.0, 3), told(11.0, 4)])
    assert (load.seen.lives, load.cpu_s, load.seconds, load.count("x")) == (7, 1.0, 3.0, 2)
    assert load.problems == {"p": 2}
    assert load.calls["x"]["p50_ms"] == 100.0


# --- filling


@pytest.mark.parametrize("count", [10, 200, 999, 120_000])
def test_stretches_cover_every_id_once(count: int) -> None:
    crowd = fill.Crowd(count=count, queues=["A", "B", "C"])
    ids = [n for one in fill.stretches(crowd) for n in range(one.first, one.last + 1)]
    assert ids == list(crowd.ids())
    assert abs(len(ids) - count) < 3


@pytest.mark.parametrize(
    ("state", "tables"),
    [
        ("activated", ["jobs", "lanes", "ready", "job_details", "files", "files"]),
        ("running", ["jobs", "attempts", "job_details", "files", "files"]),
    ],
)
def test_statements_write_the_tables_that_a_state_needs(state: str, tables: list[str]) -> None:
    crowd = fill.Crowd(count=30, queues=["A"], state=state)
    (stretch,) = fill.stretches(crowd)
    assert [s.partition("INTO ")[2].split()[0] for s in fill.statements(crowd, stretch)] == tables


def test_only_the_first_jobs_of_a_queue_are_complete() -> None:
    crowd = fill.Crowd(count=200_000, queues=["A", "B"], complete=10, first_id=1)
    written = [s for one in fill.stretches(crowd) for s in fill.statements(crowd, one) if " files " in s]
    assert [statement.rpartition("seq_")[2] for statement in written] == ["1_to_10"] * 2 + ["100001_to_100010"] * 2


def test_a_new_column_that_must_have_a_value_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_DETAILS", {"job_id": "seq"})
    crowd = fill.Crowd(count=1, queues=["A"])
    with pytest.raises(BenchError, match="job_details has a new column"):
        [*fill.statements(crowd, next(fill.stretches(crowd)))]


def test_every_job_fits_its_row_in_the_queue() -> None:
    crowd = fill.Crowd(count=1, queues=["A"])
    assert set(fill._ready(next(fill.stretches(crowd)))) <= set(schema.ready.c.keys())


def test_indexes_that_foreign_keys_lean_on_stay() -> None:
    table = """CREATE TABLE `t` (
  `a` int NOT NULL,
  PRIMARY KEY (`a`),
  UNIQUE KEY `uq` (`b`),
  KEY `ix_a` (`a`,`c` DESC),
  KEY `ix_job` (`job_id`,`x`),
  KEY `ix_last` (`z`),
  CONSTRAINT `fk` FOREIGN KEY (`job_id`) REFERENCES `jobs` (`job_id`)
)"""
    found = {"ix_a": "KEY `ix_a` (`a`,`c` DESC)", "ix_last": "KEY `ix_last` (`z`)"}
    assert fill.missable_keys(table) == found


# --- life


@given(st.floats(0.1, 1000), st.floats(0.1, 100))
def test_a_round_has_enough_jobs_in_whole_submissions(rate: float, seconds: float) -> None:
    jobs = life.jobs_for(rate, seconds)
    assert jobs % life.BULK == 0
    assert jobs >= min(rate * seconds, 10_000) - 1
    assert 100 <= jobs <= 10_000


def a_load(lives: int) -> drive.Load:
    seen = Seen(started=1.0, ended=3.0, lives=lives, empty=2)
    seen.latencies["getJob"] += [0.01] * lives
    return drive.Load(seen, cpu_s=0.1)


def a_round(clients: int, door: Door = PLAIN) -> life.Round:
    return life.Round(
        door=door, clients=clients, submitted=200, submit=a_load(0), pilots=a_load(100), finished=99,
        before_s=1.0, after_s=0.5,
        before=Usage(2.0, 1.0, 1.0, {}), during=Usage(2.0, 0.5, 1.0, {"work": 0.5}), after=Usage(0.5, 0.5, 0.5, {}),
    )  # fmt: skip


def a_floor() -> floor.Floor:
    claims = summary_ms([0.001]) | {"per_s": 1000.0, "cpu_ms": 0.6, "client_ms": 0.2, "db_ms": 0.4}
    return floor.Floor(claims, summary_ms([0.001]) | {"per_s": 1000.0, "cpu_ms": 0.4, "web_ms": 0.4})


def test_each_phase_is_shared_out_over_its_own_jobs() -> None:
    told = life.round_json(a_round(4))
    assert told["cpu_ms_per_job"] == pytest.approx(1000 * (3 / 200 + 4 / 100))
    assert told["web_ms"] + told["db_ms"] == pytest.approx(told["cpu_ms_per_job"])
    assert told["front_ms"] + told["background_ms"] == pytest.approx(told["web_ms"])
    assert told["pilot_lives_per_s"] == 50.0
    assert sum(told["phases_ms"].values()) == pytest.approx(told["cpu_ms_per_job"])


def test_results_of_lives_have_the_keys_that_machines_read() -> None:
    told = life.as_json([a_round(4), a_round(64)], a_floor())
    assert {"cpu_ms_per_job", "web_ms", "db_ms", "pilot_lives_per_s", "floor_ratio", "by_clients"} <= set(told)
    assert told["clients"] == 64
    assert told["floor_ratio"] == pytest.approx(55 / 3, abs=0.01)
    assert list(told["by_clients"]) == ["4", "64"]
    text = "\n".join(show.plain(sheet) for sheet in life.sheets(told))
    assert "gunicorn http, 64 clients: 1 of 100 jobs did not end as finished" in text


def test_every_door_has_its_rows() -> None:
    last = Door("apache", "new")
    told = life.as_json([a_round(4), a_round(4, last), a_round(16, last)], a_floor())
    assert [(one["front"], one["connection"], one["clients"]) for one in told["rows"]] == [
        ("gunicorn", "http", 4), ("apache", "new", 4), ("apache", "new", 16),
    ]  # fmt: skip
    assert (told["front"], told["connection"], told["clients"]) == ("apache", "new", 16)
    assert list(told["by_clients"]) == ["4", "16"]
    text = "\n".join(show.plain(sheet) for sheet in life.sheets(told))
    assert all(f"{kind}: {CONNECTIONS[kind]}" in text for kind in ("http", "new"))
    assert f"https: {CONNECTIONS['https']}" not in text


# --- pilots that wait


def test_a_pilot_that_waits_comes_back_until_it_has_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "COME_WITHIN_S", 0.0)
    bodies = [b'{"StatusCode": 20, "retryAfter": 0.1}', b'{"StatusCode": 20}', b'{"StatusCode": 0, "PandaID": 8}']
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    with answering(*answers) as (port, asked):
        seen = client(port, wait_s=3.0, requests=[], seconds=60.0).run()
    assert [how for _, _, how in seen.waits] == ["later", "in vain", "given"]
    assert seen.waits[1][0] - seen.waits[0][1] >= 0.09, "it came back too early"
    assert [job_id for job_id, _ in seen.got] == [8]
    assert all(b'"wait": 3.0' in request for request in asked)


def test_a_pilot_that_waits_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "COME_WITHIN_S", 0.0)
    body = b'{"StatusCode": 20, "retryAfter": 1000}'
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as (port, _):
        seen = client(port, wait_s=100.0, requests=[], seconds=0.3).run()
    assert len(seen.waits) == 1


@pytest.mark.parametrize(("pilots", "bursts"), [(1, 1), (6, 1), (40, 4), (500, 12)])
def test_there_are_fewer_jobs_than_pilots_that_wait(pilots: int, bursts: int) -> None:
    assert longpoll.LongPollWish(pilots=pilots, wait_s=1.0, seconds=1.0).bursts == bursts


def test_what_waiting_costs() -> None:
    seen = Seen(waits=[[5.0, 30.0, "given"], [9.0, 11.0, "later"], [11.5, 12.0, "later"], [2.0, 19.0, "in vain"]])
    quiet = longpoll.Quiet(10.0, 20.0, Usage(0.3, 0.1, 0.1, {"parking": 0.1}))
    wish = longpoll.LongPollWish(pilots=4, wait_s=25.0, seconds=10.0)
    told = longpoll.as_json(wish, quiet, drive.Load(seen, 0.0), [0.01, 0.02, 0.5])
    assert (told["parked"], told["told_to_come_later"]) == (1, 3)
    assert (told["retry_after_answers"], told["waited_in_vain"]) == (2, 1)
    assert (told["idle_core_percent"], told["idle_web_percent"], told["idle_db_percent"]) == (4.0, 3.0, 1.0)
    assert (told["given"], told["p50_ms"], told["p99_ms"]) == (3, 20.0, 500.0)
    text = "\n".join(show.plain(sheet) for sheet in longpoll.sheets(told))
    assert "parking 1.00" in text


# --- claims


def test_few_jobs_are_not_claimed_away() -> None:
    wish = claim.ClaimWish(waiting=10_000, claims=5000)
    assert wish.most_claims == 1000
    assert claim.ClaimWish(waiting=10_000_000, claims=5000).most_claims == 5000


def test_threads_go_round_the_queues_in_orders_of_their_own() -> None:
    queues = [f"Q{n}" for n in range(50)]
    first, second = claimer.queue_order(queues, 1), claimer.queue_order(queues, 2)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(queues)


def a_pass(ids: list[int], empty: int = 0) -> claim.Pass:
    return claim.Pass("title", 1, [0.001] * len(ids), ids, empty, 0.5, 0.1, 0.1)


def test_jobs_given_twice_are_counted() -> None:
    passes = [a_pass([1, 2, 3]), a_pass([3, 4], empty=1), a_pass([5]), a_pass([5, 5])]
    told = claim.as_json(claim.ClaimWish(waiting=7), passes, {"memory": [0.002, 0.001, 0.003], "user": "not there"})
    assert (told["given_twice"], told["no_job_answers"], told["claims"]) == (3, 1, 8)
    assert told["nothing_matches_ms"] == 2.0
    assert told["nothing_matches"]["user"] == "not there"
    assert told["claims_per_s"] == 4.0
    keys = {"waiting", "p50_ms", "p99_ms", "claims_per_s", "batched_claims_per_s", "nothing_matches_ms"}
    assert keys <= set(told)
    assert "not there" in "\n".join(show.plain(sheet) for sheet in claim.sheets(told))


# --- calls, profiles, tables


def test_calls_have_names_of_their_own() -> None:
    names = [trial.name for trial in calls.trials()]
    assert len(names) == len(set(names))


def test_calls_that_are_not_there_are_said_to_be_missing() -> None:
    done = [calls.Measured("hoped for", None, {})]
    assert calls.as_json(done, 4)["calls"] == {"hoped for": "not there"}
    assert "hoped for  not there" in show.plain(calls.sheet(done, 4))


def test_samples_are_counted_at_the_end_of_the_stack_and_anywhere() -> None:
    raw = 'process 7:"x";a (m.py:1);b (p/m.py:2);b (p/m.py:9) 3\na (m.py:5) 1\nnonsense\n'
    own, total, samples = profiler.top(raw)
    assert samples == 4
    assert own == {"b (p/m.py)": 3, "a (m.py)": 1}
    assert total == {"a (m.py)": 4, "b (p/m.py)": 3}
    assert [profiler.package_of(name) for name in total] == ["m", "p"]


def test_a_profiler_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(profiler.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="pip install py-spy"):
        profiler.py_spy()


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, "-"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0, "0.00"), (7, "7"), ("x", "x")],
)
def test_numbers_have_three_digits_that_mean_something(cell: show.Cell, text: str) -> None:
    assert show.text_of(cell) == text


def test_plain_tables_are_aligned() -> None:
    sheet = show.Sheet("Title", ("name", "n"), [("long name", 5), ("x", 12345)], "note")
    assert show.plain(sheet).splitlines() == [
        "Title",
        "name           n",
        "long name      5",
        "x          12345",
        "note",
    ]


def test_errors_of_the_server_are_not_mistaken_for_ours() -> None:
    assert not issubclass(BenchError, PandaError)


def test_the_brokerage_is_measured_without_server_and_database() -> None:
    size = brokerage.Size(jobs=300, queues=12, datasets=9, kinds=4)
    told, again = brokerage.measure(size), brokerage.measure(size)
    assert (told.placed, told.queues_used) == (again.placed, again.queues_used), "the same every time"
    assert 0 < told.placed <= 300 and 1 <= told.queues_used <= 12 and told.written_mb > 0
    sheet = told.sheet(size)
    assert len(sheet.columns) == len(sheet.rows[0]) and sheet.rows[0][:2] == (300, 12)
    assert told.as_json()["placed"] == told.placed
