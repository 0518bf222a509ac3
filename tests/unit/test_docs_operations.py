"""The operator's page names only what is there: commands, options, units, keys of the configuration, files."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pandaserver.config import SECTIONS
from pandaserver.deploy.layout import DEBIAN
from pandaserver.deploy.plan import Choices, make_plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PLAN = make_plan(Choices(layout=DEBIAN, monitor_port=443), None)
FILES = {str(file.path) for file in PLAN.files}


@pytest.mark.parametrize(
    "unit", sorted(set(re.findall(r"\bpanda-(?:worker|reload|monitor@|scheduler@)(?:\.timer)?", PAGE)))
)
def test_units(unit: str) -> None:
    name = unit if "." in unit else f"{unit}.service"
    assert f"/etc/systemd/system/{name}" in FILES


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"panda-server (\w+(?: --phase \w+| (?:status|upgrade|check))?)", PAGE)))
)
def test_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pandaserver import command as line

    word, *rest = command.split()
    with pytest.raises(SystemExit) as ended:
        line.main([word, *rest, "--help"])
    assert ended.value.code == 0 and "usage: panda-server" in capsys.readouterr().out


INSTALL = [line for line in PAGE.replace("\\\n", " ").splitlines() if "panda-server install" in line]
INLINE = re.findall(r"`(--[a-z-]+)`", PAGE.partition("## 2.")[0])


@pytest.mark.parametrize("option", sorted({*INLINE, *re.findall(r"(--[a-z]+(?:-[a-z]+)*)", "\n".join(INSTALL))}))
def test_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pandaserver import command as line

    with pytest.raises(SystemExit):
        line.main(["install", "--help"])
    assert option in capsys.readouterr().out


@pytest.mark.parametrize(("section", "key"), sorted(set(re.findall(r"\[(\w+)\] (\w+)", PAGE)) - {("monitor", "host")}))
def test_keys(section: str, key: str) -> None:
    assert key in {field.name for field in fields(SECTIONS[section])}


@pytest.mark.parametrize("path", ["/etc/apache2/sites-available/panda.conf", "/etc/logrotate.d/panda"])
def test_places(path: str) -> None:
    assert path in PAGE and path in FILES
