"""Where the story plays: shells of people on the machine, whose commands go into the transcript."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rehearsal.disk import NAME
from rehearsal.machine import Machine, RehearsalError, Session
from rehearsal.page import Block
from rehearsal.transcript import Transcript

COMMAND_LIMIT_S = 300.0
_PATIENCE_S = 120.0
OPERATOR, USER = "root", "alice"
_HOMES = {OPERATOR: Path("/root"), USER: Path("/home") / USER}
_FOLDERS = {OPERATOR: _HOMES[OPERATOR] / "panda", USER: _HOMES[USER]}
PANDA = f"https://{NAME}:25443"


@dataclass
class Stage:
    """A running machine with the page and the transcript."""

    machine: Machine
    page: dict[str, Block]
    transcript: Transcript

    def __enter__(self) -> Self:
        self._sessions: dict[str, Session] = {}
        self._done: set[str] = set()
        self._stack = ExitStack()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def block(self, name: str, user: str = OPERATOR) -> list[str]:
        """Do what a block of the page says; give the outputs of its commands.

        Raises:
            RehearsalError: a command does not end as the page says.
        """
        block = self.page[name]
        self._done.add(name)
        last = len(block.commands) - 1
        return [
            self.do(command, user, exit_code=block.exit_code if number == last else 0)
            for number, command in enumerate(block.commands)
        ]

    def left_out(self) -> list[str]:
        """List the blocks of the page that were not done here."""
        return sorted(set(self.page) - self._done)

    def do(self, command: str, user: str = OPERATOR, *, exit_code: int = 0) -> str:
        """Run a command in a user's shell and give what it said.

        Raises:
            RehearsalError: it does not end as it should.
        """
        result = self._session(user).run(command, limit_s=COMMAND_LIMIT_S)
        self.transcript.command(f"{user}{'#' if user == OPERATOR else '$'}", command, result)
        if result.exit_code != exit_code:
            raise RehearsalError(f"{command.splitlines()[0]}: ended with {result.exit_code} instead of {exit_code}")
        return result.output

    def _session(self, user: str) -> Session:
        if user not in self._sessions:
            home = str(_HOMES[user])
            session = self._stack.enter_context(self.machine.session(user, home))
            session.run(f"cd {_FOLDERS[user]}", limit_s=10)
            self._sessions[user] = session
        return self._sessions[user]

    def wait(self, good: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
        """Look again and again.

        Raises:
            RehearsalError: it does not come true.
        """
        end = time.monotonic() + patience_s
        while not good():
            if time.monotonic() > end:
                raise RehearsalError(f"not in {patience_s:.0f} s: {what}")
            time.sleep(0.5)

    def jobs(self, ids: list[int]) -> list[dict[str, Any]]:
        """Ask what has become of jobs; what the server does not know is left out."""
        told = ",".join(map(str, ids))
        authorities = "/etc/grid-security/certificates"
        words = ["curl", "--silent", "--show-error", "--capath", authorities, "--data", f"ids={told}"]
        answer = json.loads(self.machine.run(*words, f"{PANDA}/server/panda/getJobStatus"))
        return [job for job in answer if job]
