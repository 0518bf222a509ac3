"""Secrets that users leave for their jobs, such as a password of a database: kept sealed, given to nobody but a job."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pandaserver.errors import BadInput, ConfigError, NotAvailable, NotFound, TooLarge
from pandaserver.taskbuffer import user_secrets
from pandaserver.taskbuffer.buffer import TaskBuffer

MOST_CHARACTERS, MOST_SECRETS = 1_000_000, 100
_NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,200}")


@dataclass(frozen=True)
class Vault:
    """Where secrets are kept; without keys there are none."""

    buffer: TaskBuffer
    keys: MultiFernet | None = None

    def put(self, owner: str, name: str, value: str) -> None:
        """Keep a secret, in place of one of that name.

        Raises:
            BadInput, TooLarge: name, value or their number is not acceptable.
            NotFound: this server keeps none.
        """
        keys = self._keys()
        if not _NAME.fullmatch(name):
            raise BadInput(
                "the name of a secret has letters, digits and _ . : + -, at most 200", field="key", value=name
            )
        if len(value) > MOST_CHARACTERS:
            raise TooLarge(f"a secret has at most {MOST_CHARACTERS} characters, this one {len(value)}", field="value")
        known = self.buffer.read(lambda c: user_secrets.names(c, owner))
        if name not in known and len(known) >= MOST_SECRETS:
            raise BadInput(f"there are {len(known)} secrets already: delete some", field="key", value=name)
        sealed = keys.encrypt(json.dumps([owner, name, value]).encode()).decode()
        now = self.buffer.now()
        self.buffer.run(lambda c: user_secrets.keep(c, owner, name, sealed=sealed, now=now))

    def remove(self, owner: str, name: str | None = None) -> None:
        """Forget a secret, or all; that there is none is no error."""
        self.buffer.run(lambda c: user_secrets.forget(c, owner, name))

    def names(self, owner: str) -> list[str]:
        """Name the secrets of somebody: more is told to their jobs only."""
        return self.buffer.read(lambda c: user_secrets.names(c, owner))

    def open(self, owner: str) -> dict[str, str]:
        """Give the secrets of somebody; whoever calls has made sure that it is for one of their jobs.

        Raises:
            NotAvailable: the key with which one was sealed is not there any more.
        """
        sealed = self.buffer.read(lambda c: user_secrets.of_owner(c, owner))
        return {name: self._opened(owner, name, text) for name, text in sealed.items()}

    def _opened(self, owner: str, name: str, sealed: str) -> str:
        try:
            whose, which, value = json.loads(self._keys().decrypt(sealed))
        except InvalidToken:
            whose, which, value = "", "", ""
        if (whose, which) != (owner, name):  # somebody moved rows about
            text = f"secret {name} of {owner} cannot be opened: the key of [secrets] key_file is another than it was"
            raise NotAvailable(text, field="key", value=name)
        return str(value)

    def _keys(self) -> MultiFernet:
        if self.keys is None:
            raise NotFound("this server keeps no secrets (its [secrets] key_file is empty)", field="key")
        return self.keys


def read_keys(path: Path | None) -> MultiFernet | None:
    """Read the keys, one per line: the first seals, all open; so a new one goes in front of the old.

    Raises:
        ConfigError: there is none, one is damaged, or others may read them.
    """
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
        if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
            raise ConfigError(f"{path} can be read by everybody: chmod o= {path}", field="key_file", value=path)
        keys = [Fernet(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        text = f"[secrets] key_file {path}: {error}; make one with: openssl rand -base64 32 | tr '+/' '-_'"
        raise ConfigError(text, field="key_file", value=path) from error
    if not keys:
        raise ConfigError(f"[secrets] key_file {path} has no key in it", field="key_file", value=path)
    return MultiFernet(keys)
