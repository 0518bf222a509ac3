"""The pages in a real browser: no error in its console, nothing too wide for a phone, readable in light and dark."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from integration.test_monitor_world import HOSTILE, World, populate
from werkzeug.serving import make_server

from pandamonitor.app import create_app
from pandamonitor.settings import Settings
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import Database

pytestmark = pytest.mark.pages

INSTALL = "Chromium is not installed. Run: sudo apt-get install -y --no-install-recommends chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PHONE, DESK = 390, 1400


@dataclass
class Browser:
    """Chromium over its debugging pipe: messages in JSON, each ended by a zero byte."""

    told: Any
    answers: Any
    session: str = ""
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.told.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        letters = bytearray()
        while (letter := self.answers.read(1)) != b"\0":
            assert letter, "the browser has gone"
            letters += letter
        return dict(json.loads(letters))

    def open(self, url: str) -> None:
        """Go to a page and wait until it is whole."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def look(self, expression: str) -> Any:
        """Evaluate an expression in the page, and wait where it is a promise."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def size(self, width: int) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def theme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.ask("Emulation.setEmulatedMedia", media="screen", features=features)

    def complaints(self) -> list[str]:
        """Give what the console says is wrong: scripts, policies, things that could not be loaded."""
        found = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        said = [f"{entry['text']} {entry.get('url', '')}" for entry in found if entry["level"] in ("error", "warning")]
        return said + [str(e["params"]) for e in self.events if e["method"] == "Runtime.exceptionThrown"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail(INSTALL, pytrace=False)
    to_browser, from_browser = os.pipe(), os.pipe()
    profile = tmp_path_factory.mktemp("profile")

    def take_pipes() -> None:
        kept = os.dup(to_browser[0]), os.dup(from_browser[1])  # one of the two may be number 3 or 4 itself
        os.dup2(kept[0], 3)
        os.dup2(kept[1], 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"], close_fds=False, start_new_session=True,
        preexec_fn=take_pipes, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser[0])
    os.close(from_browser[1])
    with os.fdopen(to_browser[1], "wb", buffering=0) as told, os.fdopen(from_browser[0], "rb") as answers:
        opened = Browser(told, answers)
        target = opened.ask("Target.createTarget", url="about:blank")["targetId"]
        opened.session = opened.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Log", "Runtime"):
            opened.ask(f"{part}.enable")
        yield opened
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Site:
    """A monitor that is served."""

    url: str
    world: World

    def pages(self) -> list[str]:
        job = self.world.named
        return [
            "/", "/jobs", "/jobs?state=failed&site=UTA", f"/jobs/{job['failed']}", f"/jobs/{job['running']}",
            f"/jobs/{job['finished']}", f"/jobs/{job['waiting']}", f"/jobs/{job['finished']}/log?member=0", "/sites",
            "/sites/UTA", "/datasets", f"/datasets/{quote(HOSTILE)}", "/datasets/user.alice.fit", "/errors",
            "/transfers", "/timeouts", "/server", "/search?q=alice",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root: Path = tmp_path_factory.mktemp("grid")
    database = Database(f"sqlite:///{root}/panda.db")
    schema.metadata.create_all(database.writer)
    world = populate(database, root, datetime.now(UTC))
    settings = Settings(database=f"sqlite:///{root}/panda.db", cache_s=0, refresh_s=2)
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}", world)
    server.shutdown()
    thread.join()
    server.server_close()
    database.close()


# the contrast of every text with what is behind it, by the formula of WCAG 2
FAINT_TEXTS = """(() => {
  const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const colour = (text) => { const n = text.match(/[0-9.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((below, c) => below.map((v, i) => v * (1 - c[3]) + c[i] * c[3]), [255, 255, 255]);
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.matches(".zero, .hidden, option, title") || element.closest("svg, [hidden]")) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2) continue;
    const [a, b] = [light(colour(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const words = element.textContent.trim().slice(0, 40);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${element.className} ${words}`);
  }
  return faint;
})()"""

NAMELESS = """[...document.querySelectorAll("a, button, input:not([type=hidden]), select")].filter((e) =>
  !e.textContent.trim() && !e.getAttribute("aria-label") && !e.labels?.length && !e.title).map((e) => e.outerHTML)"""


@pytest.mark.parametrize(("width", "theme"), [(PHONE, "light"), (DESK, "dark")])
def test_pages_fit_and_can_be_read(browser: Browser, site: Site, width: int, theme: str) -> None:
    browser.size(width)
    browser.theme(theme)
    for path in site.pages():
        browser.open(site.url + path)
        assert browser.look("document.documentElement.scrollWidth") <= width, path
        assert browser.look(FAINT_TEXTS) == [], (path, theme)
        assert browser.look(NAMELESS) == [], path
        assert browser.complaints() == [], path


def test_light_and_dark_differ(browser: Browser, site: Site) -> None:
    colours = []
    for theme in ("light", "dark"):
        browser.theme(theme)
        browser.open(f"{site.url}/")
        colours.append(browser.look("getComputedStyle(document.body).backgroundColor"))
    assert len(set(colours)) == 2


def test_icons_are_drawn_and_charts_are_coloured(browser: Browser, site: Site) -> None:
    browser.theme("light")
    browser.size(DESK)
    browser.open(f"{site.url}/")
    assert browser.look("getComputedStyle(document.querySelector('.fill-finished')).fill") != "rgb(0, 0, 0)"
    assert browser.look("getComputedStyle(document.querySelector('#i-waiting path')).fill") == "none"
    boxes = browser.look("[...document.querySelectorAll('.state .icon')].map((i) => i.getBoundingClientRect().width)")
    assert boxes
    assert min(boxes) >= 10


NEXT_REFRESH = """new Promise((done) => new MutationObserver((_, o) => { o.disconnect(); done(true); })
  .observe(document.getElementById("main"), { childList: true }))"""


def test_a_refresh_keeps_filters_scroll_and_what_is_open(browser: Browser, site: Site) -> None:
    browser.theme("light")
    browser.size(PHONE)
    url = f"{site.url}/jobs?hours=72&site=BNL&sort=name"
    browser.open(url)
    before = browser.look("document.getElementById('made-at').dateTime")
    browser.look("document.getElementById('filters').open = true; window.scrollTo(0, 300)")
    browser.look("document.querySelector('.scroll').scrollLeft = 120")
    assert browser.look(NEXT_REFRESH)
    assert browser.look("document.getElementById('made-at').dateTime") > before
    assert browser.look("location.href") == url
    assert browser.look("document.getElementById('filters').open")
    assert browser.look("[window.scrollY, document.querySelector('.scroll').scrollLeft]") == [300, 120]
    assert browser.look("document.querySelectorAll('main').length") == 1
    assert "ago" in browser.look("document.querySelector('main time').title")
    assert browser.complaints() == []


def test_the_pause_holds_over_pages(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/sites")
    browser.look("document.getElementById('pause').click()")
    browser.open(f"{site.url}/server")
    assert browser.look("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    browser.look("document.getElementById('pause').click()")
    assert browser.look("document.getElementById('pause').textContent") == "Pause"


def test_hostile_names_do_nothing(browser: Browser, site: Site) -> None:
    for path in (f"/datasets/{quote(HOSTILE)}", f"/jobs/{site.world.named['failed']}", "/errors"):
        browser.open(site.url + path)
        assert not [e for e in browser.events if e["method"] == "Page.javascriptDialogOpening"]
        assert browser.look("document.scripts.length") == 1
