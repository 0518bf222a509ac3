"""Jobs in the database: written, loaded and moved by one function only; what is kept of them, to the last character."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from factories import accept, load_job, move, new_job, ready_ids

from pandaserver.errors import InvalidTransition
from pandaserver.model.codes import DIAGNOSTIC_LENGTH, ErrorFamily, JobError
from pandaserver.model.file import FileStatus, FileType, NewFile
from pandaserver.model.states import TRANSITIONS, JobState
from pandaserver.taskbuffer import counters, files, jobs, schema, submissions
from pandaserver.taskbuffer.buffer import TaskBuffer

S = JobState
WAYS: dict[JobState, tuple[JobState, ...]] = {  # how to get there from defined
    S.DEFINED: (),
    S.WAITING: (S.WAITING,),
    S.ASSIGNED: (S.ASSIGNED,),
    S.ACTIVATED: (S.ACTIVATED,),
    S.THROTTLED: (S.ACTIVATED, S.THROTTLED),
    S.SENT: (S.ACTIVATED, S.SENT),
    S.STARTING: (S.ACTIVATED, S.SENT, S.STARTING),
    S.RUNNING: (S.ACTIVATED, S.SENT, S.STARTING, S.RUNNING),
    S.HOLDING: (S.ACTIVATED, S.SENT, S.HOLDING),
    S.TRANSFERRING: (S.ACTIVATED, S.SENT, S.HOLDING, S.TRANSFERRING),
    S.MERGING: (S.ACTIVATED, S.SENT, S.HOLDING, S.MERGING),
    S.FINISHED: (S.ACTIVATED, S.SENT, S.HOLDING, S.FINISHED),
    S.FAILED: (S.FAILED,),
    S.CANCELLED: (S.CANCELLED,),
    S.CLOSED: (S.CLOSED,),
}
UNICODE = "Zürich \N{GREEK SMALL LETTER MU} \N{COLLISION SYMBOL}\N{SNAKE} 漢字 'quoted\" back\\slash %s %(x)s :name\n"


def table_rows(buffer: TaskBuffer, table: sa.Table) -> list[Any]:
    return buffer.read(lambda c: list(c.execute(sa.select(table))))


def everything(buffer: TaskBuffer) -> list[list[Any]]:
    return [table_rows(buffer, t) for t in (schema.jobs, schema.job_history, schema.ready, schema.job_errors)]


# --- states


@pytest.mark.parametrize("state", list(JobState))
def test_every_allowed_change_is_made_and_every_other_changes_nothing(buffer: TaskBuffer, state: JobState) -> None:
    accept(buffer, *(new_job(site="A") for _ in JobState))
    for job_id, new in enumerate(JobState, start=1):
        before = move(buffer, job_id, *WAYS[state])
        assert before.state is state
        rows = everything(buffer)
        if new in TRANSITIONS[state]:
            after = move(buffer, job_id, new)
            assert (after.state, after.state_since > before.state_since) == (new, True)
        else:
            with pytest.raises(InvalidTransition, match=f"job {job_id} is {state} and may not become {new}"):
                move(buffer, job_id, new)
            assert everything(buffer) == rows
        assert (job_id in ready_ids(buffer)) is (load_job(buffer, job_id).state is S.ACTIVATED)


def test_one_forbidden_change_among_many_stops_all(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(), new_job(), new_job())
    move(buffer, 2, S.CANCELLED)
    rows = everything(buffer)
    with pytest.raises(InvalidTransition):
        buffer.run(
            lambda c: jobs.change_state(
                c, list(jobs.load(c, [1, 2, 3], lock=True).values()), S.ACTIVATED, now=buffer.now(), reason="", site="A"
            )
        )
    assert everything(buffer) == rows


@pytest.mark.parametrize("state", [S.FINISHED, S.FAILED, S.CANCELLED, S.CLOSED])
def test_an_ended_job_has_its_end(buffer: TaskBuffer, state: JobState) -> None:
    accept(buffer, new_job())
    assert load_job(buffer, 1).ended_at is None
    ended = move(buffer, 1, *WAYS[state], site="A")
    assert ended.ended_at == ended.state_since == ended.modified_at


def test_changing_no_jobs_is_no_error(buffer: TaskBuffer) -> None:
    buffer.run(lambda c: jobs.change_state(c, [], S.ACTIVATED, now=buffer.now(), reason=""))
    assert table_rows(buffer, schema.job_history) == []


def test_the_history_tells_the_whole_life(buffer: TaskBuffer) -> None:
    accept(buffer, new_job())
    move(buffer, 1, S.ASSIGNED, S.ACTIVATED, S.SENT, S.RUNNING, S.ACTIVATED, S.SENT, S.HOLDING, S.FINISHED, site="A")
    told = buffer.read(lambda c: jobs.history_of(c, 1))
    assert [row.from_state for row in told] == [None, *(row.to_state for row in told[:-1])]
    assert told[0].reason == "submitted"
    assert [row.to_state for row in told][-1] is S.FINISHED
    assert [row.at for row in told] == sorted(row.at for row in told)


def test_long_reasons_are_cut_not_refused(buffer: TaskBuffer) -> None:
    accept(buffer, new_job())
    buffer.run(
        lambda c: jobs.change_state(
            c, list(jobs.load(c, [1]).values()), S.FAILED, now=buffer.now(), reason="\N{SNAKE}" * 9999
        )
    )
    assert buffer.read(lambda c: jobs.history_of(c, 1))[-1].reason == "\N{SNAKE}" * 500


def test_ready_jobs_stand_in_the_order_of_dispatch(buffer: TaskBuffer) -> None:
    for first, priority in ((1, 0), (2, 500), (3, -3), (4, 500)):
        accept(buffer, new_job(), first_id=first, priority=priority)
        move(buffer, first, S.ACTIVATED, site="A")
    assert ready_ids(buffer) == [2, 4, 1, 3]


def test_jobs_are_activated_where_they_are_told(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(site="A", memory_mb=1, disk_mb=2, wall_time_s=3, label="managed"))
    move(buffer, 1, S.ACTIVATED, site="B")
    (row,), (lane,) = table_rows(buffer, schema.ready), table_rows(buffer, schema.lanes)
    assert row == (lane.lane_id, 0, 1, 1, 2, 3)
    assert (lane.queue, lane.label, lane.memory_mb, lane.disk_mb, lane.wall_time_s) == ("B", "managed", 1, 2, 3)


# --- loading


def test_jobs_come_back_as_they_went_in(buffer: TaskBuffer) -> None:
    told = {
        "name": "n", "label": "managed", "processing_type": "sim", "transformation": "x.py", "definition_id": 2**40,
        "jobset_id": 3, "task_id": 4, "parent_id": 5, "vo": "v", "working_group": "g", "assigned_priority": -7,
        "max_attempt": 6, "site": "A", "cloud": "US", "release": "1\n2", "platform": "p", "input_dataset": "in",
        "output_dataset": "out", "destination": "d", "cores": 8, "memory_mb": 9, "disk_mb": 10, "cpu_time_s": 11,
        "wall_time_s": 12,
    }  # fmt: skip
    accept(buffer, new_job(**told), first_id=2**35, priority=77)
    found = load_job(buffer, 2**35)
    assert {name: getattr(found, name) for name in told} == told
    assert (found.priority, found.attempt, found.failed_attempts, found.pinned) == (77, 0, 0, True)
    assert (found.state, found.command, found.started_at, found.ended_at) == (S.DEFINED, None, None, None)
    assert found.created_at == found.state_since == found.modified_at


def test_unknown_and_repeated_ids_are_left_out(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(), new_job())
    assert list(buffer.read(lambda c: jobs.load(c, [2, 9, 1, 2, -4]))) == [1, 2]
    assert buffer.read(lambda c: jobs.load(c, [])) == {}
    assert buffer.read(lambda c: files.load_jobs(c, [7])) == []


def test_an_id_is_given_once(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(name="first"))
    with pytest.raises(sa.exc.IntegrityError):
        accept(buffer, new_job(name="second"))
    assert load_job(buffer, 1).name == "first"
    assert len(table_rows(buffer, schema.job_history)) == 1


def test_texts_keep_every_character(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(name=UNICODE, parameters=UNICODE, attributes={"a": UNICODE, UNICODE: [1, None, {"b": 1.5}]}))
    buffer.run(
        lambda c: jobs.save_details(c, {1: {"metadata": UNICODE, "log_extract": UNICODE, "stdout_tail": UNICODE}})
    )
    details = buffer.read(lambda c: jobs.details_of(c, [1]))[1]
    assert load_job(buffer, 1).name == UNICODE
    assert details.attributes == {"a": UNICODE, UNICODE: [1, None, {"b": 1.5}]}
    assert {details.parameters, details.metadata, details.log_extract, details.stdout_tail} == {UNICODE}


def test_names_may_be_full_of_four_byte_characters(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(name="\N{SNAKE}" * 255))
    assert load_job(buffer, 1).name == "\N{SNAKE}" * 255


def test_parameters_of_a_million_characters(buffer: TaskBuffer) -> None:
    text = ("0123456789abcde\N{SNAKE}" * 62_500)[:1_000_000]
    accept(buffer, new_job(parameters=text))
    buffer.run(lambda c: jobs.save_details(c, {1: {"metadata": text}}))
    details = buffer.read(lambda c: jobs.details_of(c, [1]))[1]
    assert details.parameters == text
    assert details.metadata == text


def test_details_not_told_stay(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(parameters="p"))
    for texts in ({1: {"metadata": "m"}}, {1: {"stdout_tail": "s"}, 2: {}}, {1: {}}, {}):
        buffer.run(lambda c, texts=texts: jobs.save_details(c, texts))  # type: ignore[misc]
    assert buffer.read(lambda c: jobs.details_of(c, [1, 2])) == {1: jobs.Details("p", "m", {}, "", "s")}


def test_errors_are_kept_by_attempt_and_cut_by_owner(buffer: TaskBuffer) -> None:
    accept(buffer, new_job(), new_job())
    job = load_job(buffer, 1)
    told = [JobError(family, code, UNICODE * 99) for code, family in enumerate(ErrorFamily)]
    buffer.run(lambda c: jobs.add_errors(c, job, told, buffer.now()))
    buffer.run(lambda c: jobs.add_errors(c, job, [], buffer.now()))
    found = buffer.read(lambda c: jobs.errors_of(c, [1, 2]))
    assert [e.error.family for e in found[1]] == list(ErrorFamily)
    assert all(e.error.diagnostic == (UNICODE * 99)[: DIAGNOSTIC_LENGTH[e.error.family]] for e in found[1])
    assert 2 not in found


def test_upper_and_lower_case_are_different_names(buffer: TaskBuffer) -> None:
    names = ["evnt.root", "EVNT.root", "Evnt.root", "évnt.root"]
    accept(buffer, *(new_job(NewFile(lfn=n, type=FileType.INPUT, dataset=n, scope="s")) for n in names))
    for number in range(1, len(names) + 1):
        move(buffer, number, S.WAITING)
    known = buffer.read(lambda c: files.of_jobs(c, [1, 2, 3, 4]))
    buffer.run(lambda c: files.set_status(c, [some[0].file_id for some in known.values()], FileStatus.MISSING))
    for number, name in enumerate(names, start=1):
        found = buffer.read(lambda c, name=name: files.waiting_for(c, [("s", name)]))  # type: ignore[misc]
        assert found == [number], name
    for number, name in enumerate(names):
        assert buffer.run(lambda c, name=name: counters.take(c, name, 3)) == range(1, 4), number  # type: ignore[misc]


def test_owners_and_keys_are_case_sensitive_too(buffer: TaskBuffer) -> None:
    for owner, key in (("/CN=A", "k"), ("/CN=a", "k"), ("/CN=A", "K")):
        buffer.run(lambda c, o=owner, k=key: submissions.remember(c, o, k, [o, k], buffer.now()))  # type: ignore[misc]
    assert buffer.read(lambda c: submissions.answered(c, "/CN=a", "k")) == ["/CN=a", "k"]
    assert buffer.read(lambda c: submissions.answered(c, "/CN=a", "K")) is None
    accept(buffer, new_job(), owner="/CN=A")
    counts = [buffer.read(lambda c, o=o: jobs.count_unfinished(c, o)) for o in ("/CN=A", "/CN=a")]  # type: ignore[misc]
    assert counts == [1, 0]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=UTC),  # an hour that many places skip
        datetime(1970, 1, 1, 0, 0, 0, 999999, tzinfo=UTC),
        datetime(2100, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    ],
)
def test_moments_keep_their_microseconds_and_their_zone(buffer: TaskBuffer, moment: datetime) -> None:
    accept(buffer, new_job())
    buffer.run(lambda c: jobs.touch(c, [1], moment))
    found = load_job(buffer, 1).modified_at
    assert found == moment
    assert found.tzinfo is UTC


def test_a_naive_moment_is_refused(buffer: TaskBuffer) -> None:
    accept(buffer, new_job())
    with pytest.raises(ValueError, match="naive time"):
        buffer.run(lambda c: jobs.touch(c, [1], datetime(2026, 1, 1)))  # noqa: DTZ001


def test_unfinished_jobs_are_counted_by_queue_and_state(buffer: TaskBuffer) -> None:
    accept(buffer, *(new_job() for _ in range(5)))
    for number in (1, 2):
        move(buffer, number, S.ACTIVATED, site="A")
    move(buffer, 3, S.ACTIVATED, S.SENT, site="B")
    move(buffer, 4, S.CANCELLED)
    counts = buffer.read(jobs.count_by_queue_and_state)
    assert counts == {"A": {"activated": 2}, "B": {"sent": 1}, "": {"cancelled": 1, "defined": 1}}
    assert buffer.read(lambda c: jobs.count_unfinished(c, "/CN=alice")) == 4


# --- serial numbers and secrets


def in_threads(number: int, act: Callable[[int], Any]) -> list[Any]:
    """Run `act` in threads at the same moment; errors of any come out here."""
    results: list[Any] = [None] * number
    errors: list[BaseException] = []
    gate = threading.Barrier(number)

    def run(index: int) -> None:
        try:
            gate.wait(10)
            results[index] = act(index)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


def test_serial_numbers_are_never_given_twice(buffer: TaskBuffer) -> None:
    def take(index: int) -> list[int]:
        return [n for _ in range(10) for n in buffer.run(lambda c: counters.take(c, "job", index + 1))]

    taken = [number for some in in_threads(6, take) for number in some]
    assert sorted(taken) == list(range(1, 10 * sum(range(1, 7)) + 1))


def test_counters_do_not_mix(buffer: TaskBuffer) -> None:
    assert buffer.run(lambda c: counters.take(c, "a")) == range(1, 2)
    assert buffer.run(lambda c: counters.take(c, "a", 2)) == range(2, 4)
    assert buffer.run(lambda c: counters.take_all(c, {"b": 1, "a": 2})) == {"a": range(4, 6), "b": range(1, 2)}
    assert buffer.run(lambda c: counters.take_all(c, {})) == {}
    assert buffer.run(lambda c: counters.take(c, "b")) == range(2, 3)


def test_a_number_taken_in_a_transaction_that_fails_is_no_loss(buffer: TaskBuffer) -> None:
    def fail(connection: Any) -> None:
        counters.take(connection, "job")
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        buffer.run(fail)
    assert buffer.run(lambda c: counters.take(c, "job")) == range(1, 2)


def test_all_processes_share_one_secret(buffer: TaskBuffer) -> None:
    found = in_threads(5, lambda _: buffer.run(lambda c: counters.secret(c, "job-tokens")))
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert buffer.run(lambda c: counters.secret(c, "other")) != found[0]


def test_a_secret_that_was_not_committed_is_forgotten(buffer: TaskBuffer) -> None:
    lost = []

    def fail(connection: Any) -> None:
        lost.extend(counters.secret(connection, "job-tokens") for _ in range(2))
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        buffer.run(fail)
    kept = [buffer.run(lambda c: counters.secret(c, "job-tokens")) for _ in range(3)]
    assert len(set(lost)) == len(set(kept)) == 1
    assert kept[0] not in lost
    assert buffer.read(lambda c: c.execute(sa.select(schema.secrets.c.value)).scalar_one()) == kept[0]
