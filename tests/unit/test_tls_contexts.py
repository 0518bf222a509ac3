"""The TLS context of the embedded server is made again when its files change, and only then."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pandaserver.web.tls_contexts import RECHECK_S, TlsContexts


@dataclass
class Maker:
    """Makes contexts, or fails, and counts."""

    error: OSError | None = None
    now: float = 0.0
    contexts: list[ssl.SSLContext] = field(default_factory=list)

    def __call__(self) -> ssl.SSLContext:
        if self.error is not None:
            raise self.error
        self.contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return self.contexts[-1]

    def later(self) -> None:
        self.now += RECHECK_S


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authorities = tmp_path / "certificates"
    authorities.mkdir()
    for path in (tmp_path / "cert.pem", tmp_path / "key.pem", authorities / "1.0", authorities / "1.r0"):
        path.write_text("x")
    return tmp_path


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def contexts(folder: Path, maker: Maker) -> TlsContexts:
    own = (folder / "cert.pem", folder / "key.pem")
    return TlsContexts(maker, own, folder / "certificates", clock=lambda: maker.now)


def touched(path: Path) -> None:
    """Change nothing but the time, as a list of the same length does."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("y")
    os.utime(new, ns=(0, path.stat().st_mtime_ns))
    new.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "host certificate": lambda folder: touched(folder / "cert.pem"),
    "host key": lambda folder: (folder / "key.pem").write_text("longer") and None,
    "revocation list": lambda folder: touched(folder / "certificates/1.r0"),
    "replaced, as old as before": lambda folder: replaced(folder / "certificates/1.r0"),
    "new authority": lambda folder: (folder / "certificates/2.0").write_text("x") and None,
    "authority gone": lambda folder: (folder / "certificates/1.0").unlink(),
}


def test_one_context_serves_as_long_as_nothing_changes(contexts: TlsContexts, maker: Maker) -> None:
    first = contexts.current()
    for _ in range(5):
        maker.later()
        assert contexts.current() is first
    assert len(maker.contexts) == 1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_counts(contexts: TlsContexts, maker: Maker, folder: Path, change: Callable[[Path], None]) -> None:
    first = contexts.current()
    change(folder)
    maker.later()
    assert contexts.current() is not first
    assert contexts.current() is maker.contexts[1]


def test_it_looks_now_and_then(contexts: TlsContexts, maker: Maker, folder: Path) -> None:
    first = contexts.current()
    touched(folder / "certificates/1.r0")
    maker.now += RECHECK_S / 2
    assert contexts.current() is first


def test_files_that_are_just_being_written_change_nothing(contexts: TlsContexts, maker: Maker, folder: Path) -> None:
    first = contexts.current()
    touched(folder / "key.pem")
    maker.error = ssl.SSLError("key values mismatch")
    maker.later()
    assert contexts.current() is first
    maker.error = None
    maker.later()
    assert contexts.current() is not first


def test_files_that_are_gone_change_nothing(contexts: TlsContexts, maker: Maker, folder: Path) -> None:
    first = contexts.current()
    (folder / "cert.pem").unlink()
    maker.later()
    assert contexts.current() is first


def test_without_any_good_files_there_is_none(contexts: TlsContexts, maker: Maker) -> None:
    maker.error = ssl.SSLError("no good")
    with pytest.raises(OSError, match="no good"):
        contexts.current()
