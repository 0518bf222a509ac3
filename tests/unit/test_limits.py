"""Token buckets: what one DN may ask for, by a clock that tests move."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.config import LimitsSection
from pandaserver.errors import TooMany
from pandaserver.web import limits
from pandaserver.web.limits import Buckets, Limits


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_and_refilled() -> None:
    time = Time()
    buckets = Buckets(2, 3, time)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0, "others are not in the way"
    time.now = 0.4
    assert buckets.take("a") == pytest.approx(0.1)
    time.now = 0.5
    assert buckets.take("a") == 0
    time.now = 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "it never holds more than its size"


def test_what_is_larger_than_a_bucket_needs_a_full_one_and_is_paid_for_afterwards() -> None:
    time = Time()
    buckets = Buckets(1, 10, time)
    assert buckets.take("a", 30) == 0
    assert buckets.take("a", 1) == 21
    time.now = 21
    assert buckets.take("a", 1) == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=60))
def test_nobody_gets_more_than_the_rate_and_one_bucket(steps: list[tuple[float, int]]) -> None:
    time = Time()
    buckets, taken = Buckets(3, 5, time), 0.0
    for pause, amount in steps:
        time.now += pause
        taken += 0 if buckets.take("a", amount) else amount
        assert taken <= 5 + 3 * time.now + 1e-6


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_DNS", 100)
    buckets = Buckets(1, 1, Time())
    for number in range(1000):
        buckets.take(f"dn {number}")
    assert len(buckets._levels) == 100 and buckets.take("dn 999") > 0 and sys.getsizeof(buckets._levels) < 50_000


def test_threads_do_not_get_more_together() -> None:
    buckets, got = Buckets(1e-9, 1000), list[int]()
    threads = [
        threading.Thread(target=lambda: got.append(sum(buckets.take("a") == 0 for _ in range(500)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 1000


def test_users_and_services_have_different_limits() -> None:
    told = Limits(LimitsSection(user_rate=1, user_burst=2, pilot_rate=10, pilot_burst=3), Time())
    for service, most in ((False, 2), (True, 3)):
        for _ in range(most):
            told.take_request("/CN=x", service=service)
        with pytest.raises(TooMany, match="too many requests from /CN=x") as caught:
            told.take_request("/CN=x", service=service)
        assert caught.value.retry_after_s == 1


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
        ("", ""), ("unix:", ""), ("localhost", ""), ("1.2.3", ""), ("\x00", ""),
    ],
)  # fmt: skip
def test_what_counts_as_one_place(address: str, place: str) -> None:
    assert limits.network(address) == place


def test_nobodies_are_limited_by_place() -> None:
    made = Limits(LimitsSection(anonymous_rate=1, anonymous_burst=2), Time())
    for address in ("2001:db8::1", "2001:db8::2"):
        made.take_anonymous(address)
    with pytest.raises(TooMany, match="2001:db8::/64") as caught:
        made.take_anonymous("2001:db8::3")
    assert caught.value.retry_after_s == 1
    made.take_anonymous("2001:db8:0:1::1")
    for _ in range(9):
        made.take_anonymous("")


def test_empty_means_no_limit() -> None:
    told = Limits(LimitsSection(user_rate=None, pilot_rate=None, sandbox_mb_per_day=None), Time())
    for service in (False, True):
        for _ in range(20_000):
            told.take_request("/CN=x", service=service)
    told.take_upload("/CN=x", 10**15)


def test_uploads_of_a_day() -> None:
    time = Time()
    told = Limits(LimitsSection(sandbox_mb_per_day=10), time)
    told.take_upload("/CN=x", 9 * 1024 * 1024)
    with pytest.raises(TooMany, match="10 MB a day") as caught:
        told.take_upload("/CN=x", 2 * 1024 * 1024)
    assert caught.value.retry_after_s == 8640
    told.take_upload("/CN=y", 2 * 1024 * 1024)
    time.now = 8640
    told.take_upload("/CN=x", 2 * 1024 * 1024)
