"""VOMS proxies of every kind against Apache: the same verdicts as of the embedded server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import MariaDB, pick_free_port
from factories import Pki
from private_httpd import Ports, private_httpd
from vomszoo import ACCEPTED, ALICE, REFUSED

pytestmark = [pytest.mark.credentials, pytest.mark.mysql]


def test_all_kinds_of_attributes(pki: Pki, mariadb: MariaDB) -> None:
    ports = Ports(*(pick_free_port() for _ in range(3)))
    with private_httpd(pki, mariadb.new_database(), ports) as httpd:

        def seen(name: str) -> Any:
            answer = httpd.curl("/server/panda/getAttr", who=f"voms/{name}")
            if answer.status != 200:
                return answer.status, answer.json["message"].startswith("VOMS attributes refused: ")
            told = answer.json["identity"]
            assert told["dn"] == ALICE
            return tuple(told["fqans"]), told["limited"], told["proxyDepth"]

        names = [*ACCEPTED, *REFUSED]
        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(names, pool.map(seen, names), strict=True))
    assert found == {**ACCEPTED, **dict.fromkeys(REFUSED, (401, True))}
