"""The cache: one computation for many, the old page meanwhile, and when the database is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pandamonitor.cache import BoundedDict, PageCache, Rendered, make_cache
from pandaserver.taskbuffer.monitoring import Unreadable


def page(body: str) -> Rendered:
    return Rendered(body, "text/html", "t", "2026-11-22T12:00:00.000Z")


@pytest.fixture
def cache() -> PageCache:
    return make_cache("memory")


def lose_the_database() -> Rendered:
    raise Unreadable("gone")


def test_a_page_is_made_once_while_it_is_fresh(cache: PageCache) -> None:
    made = [cache.get("/a", lambda: page("1"), for_s=60), cache.get("/a", lambda: page("2"), for_s=60)]
    assert [one.body for one in made] == ["1", "1"]
    assert cache.get("/b", lambda: page("3"), for_s=60).body == "3"


def test_without_time_nothing_is_kept(cache: PageCache) -> None:
    assert [cache.get("/a", lambda n=n: page(n), for_s=0).body for n in "12"] == ["1", "2"]


def test_others_get_the_old_page_while_one_makes_it_again(cache: PageCache) -> None:
    cache.get("/a", lambda: page("old"), for_s=60)
    started, go_on = threading.Event(), threading.Event()

    def slowly() -> Rendered:
        started.set()
        assert go_on.wait(10)
        return page("new")

    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(cache.get, "/a", slowly, for_s=1e-9)
        assert started.wait(10)
        meanwhile = cache.get("/a", lambda: page("never"), for_s=1e-9)
        go_on.set()
        assert (meanwhile.body, one.result(10).body) == ("old", "new")


def test_an_old_page_stands_in_for_a_lost_database(cache: PageCache) -> None:
    fresh = cache.get("/a", lambda: page("known"), for_s=60)
    found = cache.get("/a", lose_the_database, for_s=1e-9)
    assert (found.body, found.stale) == ("known", True)
    assert found.etag != fresh.etag
    with pytest.raises(Unreadable):
        cache.get("/never-seen", lose_the_database, for_s=60)


def test_the_dictionary_forgets_what_was_not_asked_for_longest() -> None:
    kept = BoundedDict(limit=3)
    for key in "abc":
        kept[key] = key
    assert kept.get("a") == "a"
    kept["d"] = "d"
    assert sorted(kept) == ["a", "c", "d"]
    assert kept.get("b", "nothing") == "nothing"
    assert kept.pop("z", None) is None


def test_etags_differ_with_body_and_time() -> None:
    one = page("x")
    same, other = Rendered(**vars(one)), Rendered(**(vars(one) | {"made_at": "2026-11-22T12:00:01.000Z"}))
    assert one.etag == same.etag
    assert len({one.etag, page("y").etag, other.etag}) == 3
