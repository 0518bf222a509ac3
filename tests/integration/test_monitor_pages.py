"""Every page over HTTP: well-formed, escaped, safe headers, the same numbers in JSON, honest about age and mistakes."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask.testing import FlaskClient
from integration.test_monitor_world import HOSTILE, NOW, World, populate
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from pandamonitor.app import create_app
from pandamonitor.settings import Settings
from pandaserver.model.states import FINAL, JobState
from pandaserver.model.timeouts import TIMEOUTS
from pandaserver.taskbuffer import jobs, schema
from pandaserver.taskbuffer.database import Database


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("grid")
    database = Database(f"sqlite:///{root}/panda.db")
    schema.metadata.create_all(database.writer)
    yield populate(database, root)
    database.close()


def settings(world: World, **told: Any) -> Settings:
    return Settings(**({"database": f"sqlite:///{world.root}/panda.db", "cache_s": 0.0} | told))


@pytest.fixture
def client(world: World) -> FlaskClient:
    return create_app(settings(world), lambda: NOW).test_client()


def paths(world: World) -> list[str]:
    job = world.named
    return [
        "/", "/jobs", "/jobs?state=failed&state=running&sort=-changed&size=25", "/sites", "/sites/BNL", "/sites/OLD",
        "/datasets", "/datasets?name=alice&type=output&order=name", "/datasets/user.alice.fit",
        "/datasets/user.alice.events", f"/datasets/{quote(HOSTILE)}", "/errors", "/errors?error=pilot:1305&hours=72",
        "/datasets/user.carol.later", "/transfers", "/transfers?transfer=failed", "/timeouts", "/server", "/search",
        "/search?q=alice", "/search?q=zzz",
        *(f"/jobs/{job[name]}" for name in sorted(job)), f"/jobs/{job['finished']}/log",
        f"/jobs/{job['finished']}/log?member=1",
    ]  # fmt: skip


ODD_PATHS = ["/nowhere", "/jobs/1", "/jobs?colour=red", "/sites/none", "/datasets/none", "/jobs/1001/log"]


class Reader(HTMLParser):
    """Reads a page, and notes what is not closed."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and "href" in attrs]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


# --- all pages -------------------------------------------------------------------------------------------------------


def test_every_page_is_there_and_well_formed(world: World, client: FlaskClient) -> None:
    for path in paths(world):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text[:3000])
        page = read(answer.text)
        assert (page.wrong, page.open) == ([], []), path
        names = [tag for tag, _ in page.tags]
        assert [names.count(tag) for tag in ("html", "main", "header", "footer", "h1")][0:2] == [1, 1]
        assert names.count("h1") == 1, path
        assert "<caption" in answer.text or "<table" not in answer.text
        assert re.search(r'datetime="2026-11-22T12:07:00.000Z">2026-11-22 12:07:00</time> UTC', answer.text)


def test_every_link_of_every_page_leads_somewhere(world: World, client: FlaskClient) -> None:
    seen: set[str] = set()
    for path in paths(world):
        seen.update(link for link in read(client.get(path).text).links() if link.startswith("/"))
    assert len(seen) > 200
    for link in sorted(seen):
        answer = client.get(link)
        assert answer.status_code in (200, 302), (link, answer.text[-2000:])


def test_no_page_lets_strangers_write_html(world: World, client: FlaskClient) -> None:
    for path in [*paths(world), f"/search?q={quote('<script>alert(2)</script>')}", f"/jobs?name={quote(HOSTILE)}"]:
        text = client.get(path).text
        page = read(text)
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert len(scripts) == 1, path
        assert (scripts[0]["src"] or "").startswith("/static/monitor.js?v=")
        assert not {"b", "i", "img", "style"} & {tag for tag, _ in page.tags}, path
        assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on") or a == "style"], path


def test_hostile_names_are_shown_as_they_are(world: World, client: FlaskClient) -> None:
    text = client.get(f"/jobs/{world.named['failed']}").text
    assert "payload said user.mallory.&lt;script&gt;alert(1)&lt;/script&gt;&amp;x=" in text
    assert "Mallory &lt;b&gt;" in text
    assert "Traceback red &lt;script&gt;x&lt;/script&gt;" in text
    assert client.get(f"/datasets/{quote(HOSTILE)}").status_code == 200


def test_every_answer_has_the_safe_headers(world: World, client: FlaskClient) -> None:
    every = [*paths(world), *ODD_PATHS, "/?format=json", "/jobs?format=csv", "/static/monitor.js", "/search?q=BNL"]
    for path in every:
        answer = client.get(path)
        headers = answer.headers
        answer.close()
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


def test_pages_name_no_other_host(world: World, client: FlaskClient) -> None:
    static = Path(__file__).parents[2] / "pandamonitor" / "static"
    for text in [client.get("/").text, *(p.read_text() for p in static.iterdir())]:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


# --- the same for machines -------------------------------------------------------------------------------------------


def test_every_page_is_json_too(world: World, client: FlaskClient) -> None:
    for path in paths(world):
        answer = client.get(path + ("&" if "?" in path else "?") + "format=json")
        assert answer.status_code == 200, path
        assert answer.mimetype == "application/json"
        told = json.loads(answer.text)
        assert told["made_at"] == "2026-11-22T12:07:00.000Z"
        assert told["data"] or path.startswith("/search")


def get_json(client: FlaskClient, path: str) -> Any:
    return json.loads(client.get(path).text)["data"]


def test_totals_are_the_same_everywhere(world: World, client: FlaskClient) -> None:
    everything = world.next_id - 1001
    overview, listed = get_json(client, "/?format=json"), get_json(client, "/jobs?format=json&size=500")
    assert overview["total"] == listed["total"] == len(listed["jobs"]) == everything
    assert overview["states"] == listed["summary"]["state"]
    assert all(sum(values.values()) == everything for values in listed["summary"].values())
    by_site = {site: sum(row.values()) for site, row in overview["sites"].items() if row and sum(row.values())}
    assert {site or "none": number for site, number in by_site.items()} == listed["summary"]["site"]
    sites = {row["name"]: row for row in get_json(client, "/sites?format=json")["sites"]}
    for name, row in sites.items():
        parts = ("queued", "with_pilot", "after_pilot", "finished", "failed")
        assert sum(row[part] for part in parts) == by_site.get(name, 0)
    assert f"<strong>{everything}</strong> jobs, shown 1–{everything}" in client.get("/jobs").text.replace("\n", "")


def test_cells_of_the_matrix_lead_to_so_many_jobs(world: World, client: FlaskClient) -> None:
    cells = re.findall(r'<td class="n c-\w+"><a href="(/jobs[^"]+)">(\d+)</a>', client.get("/").text)
    assert len(cells) > 8
    for link, number in cells:
        assert get_json(client, link.replace("&amp;", "&") + "&format=json")["total"] == int(number)


def test_tables_are_csv_too(world: World, client: FlaskClient) -> None:
    for path in ("/", "/jobs", "/sites", "/datasets", "/errors", "/transfers", "/timeouts", "/server"):
        answer = client.get(f"{path}?format=csv")
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert answer.mimetype == "text/csv"
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > 1, path
        assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "@")]
    assert client.get("/search?format=csv").status_code == 400


# --- filters and screens ---------------------------------------------------------------------------------------------


def test_filters_stay_in_every_link_of_the_list(client: FlaskClient) -> None:
    page = read(client.get("/jobs?site=BNL&hours=72&size=25&sort=name").text)
    links = [urlsplit(link) for link in page.links() if link.startswith("/jobs?")]
    kept = [parse_qs(link.query) for link in links]
    assert len(kept) > 15
    with_site = [values for values in kept if "BNL" in values.get("site", [])]
    assert all((values["hours"], values["size"]) == (["72"], ["25"]) for values in with_site)
    assert [v for v in kept if v.get("page") == ["2"] and v["site"] == ["BNL"] and v["sort"] == ["name"]] or len(
        kept
    ) > 15


def test_the_form_shows_the_filters_that_are_on(client: FlaskClient) -> None:
    page = read(client.get("/jobs?state=failed&state=running&site=BNL&site=UTA&name=fit&error=pilot:1305").text)
    fields = [(a.get("name"), a.get("value")) for tag, a in page.tags if tag == "input"]
    assert [f for f in fields if f[0] == "site"] == [("site", "BNL"), ("site", "UTA"), ("site", "")]
    assert {("name", "fit"), ("error", "pilot:1305")} <= set(fields)
    checked = {a["value"] for tag, a in page.tags if tag == "input" and "checked" in a}
    assert checked == {"failed", "running"}


def test_screens_follow_each_other_without_loss(world: World, client: FlaskClient) -> None:
    found: list[int] = []
    for number in (1, 2):
        path = f"/jobs?size=25&page={number}&sort=name&format=json"
        found += [job["job_id"] for job in get_json(client, path)["jobs"]]
    assert sorted(found) == list(range(1001, world.next_id))
    last = client.get("/jobs?size=25&page=999").text
    assert "page 2 of 2" in last


@pytest.mark.parametrize(
    ("path", "name"),
    [("/jobs?state=x", "state"), ("/jobs?colour=red", "colour"), ("/jobs?page=0", "page"), ("/errors?hours=x", "hours"),
     ("/sites?state=failed", "state"), ("/transfers?transfer=x", "transfer"), ("/datasets?type=x", "type"),
     ("/?format=xml", "format"), ("/jobs?name=a&name=b", "name")],
)  # fmt: skip
def test_a_bad_parameter_is_a_page_that_names_it(client: FlaskClient, path: str, name: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert f"<dt>What</dt><dd><code>{name}</code></dd>" in answer.text
    assert read(answer.text).open == []


def test_mistakes_are_json_where_json_was_asked_for(client: FlaskClient) -> None:
    answer = client.get("/jobs?hours=soon&format=json")
    told = json.loads(answer.text)["error"]
    assert (answer.status_code, told["field"], told["value"]) == (400, "hours", "soon")


@pytest.mark.parametrize(
    "path", ["/jobs/999999", "/jobs/0", f"/jobs/{2**70}", "/sites/<b>", "/datasets/x/y", "/nowhere", "/jobs/abc"]
)
def test_what_is_not_there_is_a_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text
    assert (read(answer.text).wrong, "<b>" in answer.text) == ([], False)


def test_nothing_can_be_posted(client: FlaskClient) -> None:
    assert client.post("/jobs").status_code == 405
    assert client.head("/jobs").status_code == 200


# --- single pages ----------------------------------------------------------------------------------------------------


def text_of(client: FlaskClient, path: str) -> str:
    text = re.sub(r"<[^>]+>", " ", client.get(path).text)
    return " ".join(text.split())


def test_the_overview_says_what_is_wrong(client: FlaskClient) -> None:
    text = text_of(client, "/")
    for words in (
        "No server does the duty “watch”", "UTA: 6 jobs are ready and no pilot comes", "“add” is stuck",
        "1 transfers to LYON_DISK failed", "1 jobs have no site yet", "1 jobs wait for files of user.carol.later",
    ):  # fmt: skip
        assert words in text


def test_a_failed_job_tells_what_went_wrong_and_what_to_do(world: World, client: FlaskClient) -> None:
    text = text_of(client, f"/jobs/{world.named['failed']}")
    assert "pilot 1305 the payload ended with an error attempt 2" in text
    assert "What to do:" in text
    assert "jobDispatcher 100 the pilot fell silent" in text
    assert "taken by &lt;i&gt;wn&lt;/i&gt;" in text


def test_a_finished_job_tells_why_here_and_leads_up_and_down(world: World, client: FlaskClient) -> None:
    answer = client.get(f"/jobs/{world.named['finished']}")
    text = text_of(client, f"/jobs/{world.named['finished']}")
    assert "Why here" in text and "What would help" not in text
    assert "OLD rejected memory 8000 MB of memory asked, 4000 there –" in text
    assert "2 more sites were possible." in text
    assert "stage-in 12 s, payload 260 s, stage-out 8 s" in text
    assert f"/jobs/{world.named['maker']}" in read(answer.text).links()
    below = read(client.get(f"/jobs/{world.named['maker']}").text).links()
    assert {f"/jobs/{world.named['finished']}", f"/jobs/{world.named['running']}"} <= set(below)


def test_a_job_without_a_place_tells_what_would_help(world: World, client: FlaskClient) -> None:
    text = text_of(client, f"/jobs/{world.named['homeless']}")
    assert "Why nowhere" in text
    wanted = "ask for 4000 MB of memory instead of 8000; then BNL can take the job."
    assert f"What would help: {wanted}" in text
    assert "BNL , UTA rejected memory 8000 MB of memory asked" in text
    told = get_json(client, f"/jobs/{world.named['homeless']}?format=json")["rounds"][0]
    assert (told["queue"], told["changes"]) == (None, {"memory_mb": 4000})
    assert told["reasons"][0]["limit"] == 4000


def test_a_running_job_shows_its_output_and_its_clock(world: World, client: FlaskClient) -> None:
    text = text_of(client, f"/jobs/{world.named['running']}")
    assert "event 100 event 200" in text
    assert "May stay running 2 h without a word of the pilot, then: retry." in text
    assert "1 h 48 min are left." in text


def test_the_log_is_listed_and_shown(world: World, client: FlaskClient) -> None:
    path = f"/jobs/{world.named['finished']}/log"
    assert path in read(client.get(f"/jobs/{world.named['finished']}").text).links()
    names = [m["name"] for m in get_json(client, f"{path}?format=json")["members"]]
    assert names == [f"tarball_PandaJob/{name}" for name in ("payload.stdout", "pilotlog.txt", "core.bin")]
    assert "mass 91.19 GeV" in text_of(client, f"{path}?member=0")
    assert "&lt;b&gt;stage-in&lt;/b&gt; ok" in client.get(f"{path}?member=1").text
    assert "This is no text." in text_of(client, f"{path}?member=2")
    assert client.get(f"{path}?member=3").status_code == 404
    assert "has no log file" in text_of(client, f"/jobs/{world.named['waiting']}/log")


def test_errors_are_grouped_by_words(client: FlaskClient) -> None:
    groups = get_json(client, "/errors?format=json&family=pilot&site=UTA")["groups"]
    copies = [g for g in groups if g["code"] == 1137]
    assert [g["diagnostic"] for g in copies] == ["copy of out.‹n›.root to ‹url› failed: timed out"]
    assert copies[0]["number"] == 2


def test_the_timeouts_of_the_settings_are_shown(world: World) -> None:
    other = create_app(settings(world, timeouts=TIMEOUTS[:2]), lambda: NOW).test_client()
    assert len(get_json(other, "/timeouts?format=json")) == 2


@pytest.mark.parametrize(
    ("asked", "target"),
    [("1001", "/jobs/1001"), ("BNL", "/sites/BNL"), ("user.alice.fit", "/datasets/user.alice.fit"),
     ("Bob Baker", "/jobs?hours=8760&owner=Bob+Baker"), (HOSTILE, f"/datasets/{quote(HOSTILE)}"),
     (" 1002 ", "/jobs/1002")],
)  # fmt: skip
def test_the_search_goes_to_what_bears_the_name(client: FlaskClient, asked: str, target: str) -> None:
    answer = client.get("/search", query_string={"q": asked})
    assert (answer.status_code, answer.headers["Location"]) == (302, target)


def test_the_search_finds_files_and_things_alike(world: World, client: FlaskClient) -> None:
    answer = client.get("/search?q=hist.root")
    assert answer.headers["Location"] == f"/jobs/{world.named['finished']}"
    assert get_json(client, "/search?q=alice&format=json")["datasets"]
    assert "Nothing bears this name" in text_of(client, "/search?q=zzzzzz")


# --- cache, age, mistakes of ours ------------------------------------------------------------------------------------


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: Any = field(default=NOW)

    def __call__(self) -> Any:
        return self.now


def test_an_unchanged_page_costs_a_few_bytes(world: World) -> None:
    clock = Clock()
    client = create_app(settings(world, cache_s=60.0), clock).test_client()
    first = client.get("/jobs")
    clock.now += timedelta(seconds=5)
    again = client.get("/jobs", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "private, no-cache"
    assert '<span id="age">5 s</span>' in client.get("/jobs").text
    other = client.get("/jobs?site=BNL", headers={"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


def test_equal_questions_share_an_answer_and_others_do_not(world: World) -> None:
    clock = Clock()
    client = create_app(settings(world, cache_s=60.0), clock).test_client()
    made = client.get("/jobs?site=UTA&site=BNL&hours=024").headers["X-Data-Made-At"]
    clock.now += timedelta(seconds=5)
    assert client.get("/jobs?hours=24&site=BNL&site=UTA").headers["X-Data-Made-At"] == made
    assert client.get("/jobs?hours=24&site=BNL").headers["X-Data-Made-At"] != made


def test_a_lost_database_is_told_and_the_last_page_shown(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/panda.db")
    schema.metadata.create_all(database.writer)
    client = create_app(Settings(database=f"sqlite:///{tmp_path}/panda.db", cache_s=1e-9), lambda: NOW).test_client()
    assert client.get("/server").status_code == 200
    schema.metadata.drop_all(database.writer)
    database.close()
    answer = client.get("/server")
    assert answer.status_code == 200
    assert "The database does not answer" in answer.text
    lost = client.get("/sites")
    assert (lost.status_code, "No answer from the database" in lost.text) == (503, True)


def test_an_empty_grid_is_no_mistake(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/panda.db")
    schema.metadata.create_all(database.writer)
    client = create_app(Settings(database=f"sqlite:///{tmp_path}/panda.db", cache_s=0), lambda: NOW).test_client()
    assert "Nothing is known to be wrong." in text_of(client, "/")
    for path in ("/jobs", "/sites", "/datasets", "/errors", "/transfers", "/server", "/search?q=1"):
        answer = client.get(path)
        assert (answer.status_code, read(answer.text).wrong) == (200, [])
    database.close()


def test_our_own_mistakes_tell_no_secrets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = create_app(settings(world), lambda: NOW).test_client()
    monkeypatch.setattr(jobs, "load", lambda *_: 1 / 0)
    answer = client.get("/jobs/1001")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "The reason is in the log" in answer.text


def test_below_another_address_all_links_follow(world: World) -> None:
    app = create_app(settings(world), lambda: NOW)
    client = Client(DispatcherMiddleware(app, {"/monitor": app}))
    page = read(client.get("/monitor/jobs").text)
    assert {link.split("/")[1].split("?")[0] for link in page.links() if link.startswith("/")} == {"monitor"}
    sources = [a.get("href") or a.get("src") or "" for tag, a in page.tags if tag in ("link", "script")]
    assert all(source.startswith("/monitor/static/") for source in sources)


def test_the_states_of_the_model_are_all_styled() -> None:
    css = (Path(__file__).parents[2] / "pandamonitor" / "static" / "monitor.css").read_text()
    plain = {"defined", "assigned", "activated"}  # in the colour of all that is queued
    assert [s for s in JobState if f".s-{s}" not in css and s.value not in plain] == []
    assert [s for s in JobState if s not in FINAL and not re.search(rf"\.fill-{s}\b", css)] == []


def test_the_wsgi_entry_reads_the_file_that_the_environment_names(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.cfg").write_text(f"[monitor]\ndatabase = sqlite:///{world.root}/panda.db\ntitle = My <grid>\n")
    monkeypatch.setenv("PANDA_MONITOR_CONFIG", str(tmp_path / "m.cfg"))
    monkeypatch.setattr("pandaserver.log.set_up", lambda level: None)
    application = runpy.run_module("pandamonitor.wsgi")["application"]
    assert "My &lt;grid&gt;</a>" in Client(application).get("/").text
