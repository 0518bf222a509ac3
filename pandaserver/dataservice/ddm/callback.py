"""Tells the server over HTTPS that a dataset has arrived, as an external DDM does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import requests

from pandaserver.errors import DDMError

_TIMEOUT_S = 30


@dataclass(frozen=True)
class CallbackSender:
    """Where to call, and as whom."""

    url: str  # .../server/panda/datasetCompleted
    certificate: Path
    key: Path
    ca_dir: Path

    def __call__(self, dataset: str, endpoint: str) -> None:
        """Say that `dataset` is complete at `endpoint`.

        Raises:
            DDMError: the server did not take the word; say it again later.
        """
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.ca_dir)
            session.cert = (str(self.certificate), str(self.key))
            try:
                answer = session.post(self.url, json={"dataset": dataset, "site": endpoint}, timeout=_TIMEOUT_S)
            except requests.RequestException as error:
                raise DDMError(f"callback to {self.url} failed: {error}") from error
        if answer.status_code != 200:
            raise DDMError(f"callback to {self.url} was answered {answer.status_code}: {answer.text[:200]}")
