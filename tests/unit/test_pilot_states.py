"""The table of phases: complete, free of dead ends, and always leading to a report of what may be reported."""

from __future__ import annotations

import signal

import pytest

from pandapilot.codes import SIGNAL_CODES, ErrorCode, ExitCode
from pandapilot.states import TRANSITIONS, WIRE_STATES, Outcome, Phase, next_phase

WORKING = [Phase.STAGE_IN, Phase.SET_UP, Phase.RUN, Phase.STAGE_OUT]


def walk(outcomes):
    """Follow outcomes from the acceptance of a job; all phases after the last outcome end well."""
    phase, way, left = Phase.STAGE_IN, [], list(outcomes)
    while phase is not Phase.GET_JOB:
        way.append(phase)
        phase = next_phase(phase, left.pop(0) if left else Outcome.OK)
    return way


def test_every_phase_has_its_row():
    assert set(TRANSITIONS) == set(Phase)


def test_good_job_passes_all_phases_in_order():
    assert walk([]) == [*WORKING, Phase.LOG, Phase.REPORT]


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.INTERRUPTED])
def test_failed_job_goes_to_log_and_report(steps, outcome):
    assert walk([Outcome.OK] * steps + [outcome]) == [*WORKING[: steps + 1], Phase.LOG, Phase.REPORT]


@pytest.mark.parametrize("steps", range(4))
def test_job_with_an_expired_lease_stores_nothing_but_is_reported(steps):
    assert walk([Outcome.OK] * steps + [Outcome.EXPIRED]) == [*WORKING[: steps + 1], Phase.REPORT]


@pytest.mark.parametrize("steps", range(5))
def test_stale_job_is_dropped(steps):
    assert walk([Outcome.OK] * steps + [Outcome.STALE]) == [*WORKING, Phase.LOG][: steps + 1]


def test_log_that_fails_is_followed_by_the_report():
    assert walk([Outcome.OK] * 4 + [Outcome.FAILED])[-1] is Phase.REPORT


def test_signal_repeats_log_and_report_in_a_hurry():
    assert walk([Outcome.OK] * 4 + [Outcome.INTERRUPTED])[-3:] == [Phase.LOG, Phase.LOG, Phase.REPORT]
    assert walk([Outcome.OK] * 5 + [Outcome.INTERRUPTED])[-2:] == [Phase.REPORT, Phase.REPORT]


def test_without_a_job_the_pilot_ends():
    assert next_phase(Phase.GET_JOB, Outcome.NO_JOB) is Phase.END
    assert TRANSITIONS[Phase.END] == {}


def test_every_phase_can_reach_the_end():
    reached = {Phase.END}
    for _ in Phase:
        reached |= {phase for phase, row in TRANSITIONS.items() if reached & set(row.values())}
    assert reached == set(Phase)


@pytest.mark.parametrize(("phase", "outcome"), [(Phase.REPORT, Outcome.NO_JOB), (Phase.END, Outcome.OK)])
def test_impossible_outcome_is_an_error(phase, outcome):
    with pytest.raises(ValueError, match=outcome.value):
        next_phase(phase, outcome)


def test_server_sees_starting_until_the_payload_starts():
    assert {WIRE_STATES[phase] for phase in (Phase.STAGE_IN, Phase.SET_UP)} == {"starting"}
    assert {WIRE_STATES[phase] for phase in (Phase.RUN, Phase.STAGE_OUT, Phase.LOG)} == {"running"}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_has_a_meaning(code):
    assert code.meaning
    assert ErrorCode(int(code)) is code


def test_error_codes_are_the_known_numbers():
    numbers = {1098, 1099, 1103, 1104, 1106, 1137, 1144, 1146, 1149, 1150, 1165, 1171, 1191, 1213, 1235, 1305}
    assert numbers <= {int(code) for code in ErrorCode}


def test_exit_codes_are_in_the_range_that_is_documented():
    assert all(code == 0 or 64 <= code <= 79 for code in ExitCode)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1201), (signal.SIGQUIT, 1202), (signal.SIGUSR1, 1207)])
def test_signals_have_their_codes(number, code):
    assert SIGNAL_CODES[number] == code


def test_signals_of_real_faults_are_left_alone():
    assert signal.SIGSEGV not in SIGNAL_CODES and signal.SIGBUS not in SIGNAL_CODES
