"""Which ports the distribution's Apache listens on already, so that the monitor's host does not say it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pandaserver.deploy import plan
from pandaserver.deploy.layout import DEBIAN, RHEL, Layout
from pandaserver.deploy.listen import listens_already

DEBIANS = """# comment: Listen 8080
Listen 80

<IfModule ssl_module>
\tListen 443
</IfModule>

<IfModule mod_gnutls.c>
\tListen 8443
</IfModule>
<IfModule !ssl_module>
  Listen [::]:9443
</IfModule>
"""
FEDORAS = "#Listen 12.34.56.78:80\nListen 443 https\n"


def put(root: Path, path: Path, text: str = "") -> None:
    file = root / path.relative_to("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("modules", "ports"), [((), {80, 9443}), (("ssl",), {80, 443}), (("ssl", "gnutls"), {80, 443, 8443})]
)
def test_debian(tmp_path: Path, modules: tuple[str, ...], ports: set[int]) -> None:
    put(tmp_path, Path("/etc/apache2/ports.conf"), DEBIANS)
    for name in modules:
        put(tmp_path, Path(f"/etc/apache2/mods-enabled/{name}.load"))
    asked = (80, 443, 8080, 8443, 9443, 4, 44)
    assert {port for port in asked if listens_already(DEBIAN, port, tmp_path)} == ports


def test_red_hat(tmp_path: Path) -> None:
    put(tmp_path, Path("/etc/httpd/conf.d/ssl.conf"), FEDORAS)
    assert listens_already(RHEL, 443, tmp_path) and not listens_already(RHEL, 80, tmp_path)


@pytest.mark.parametrize("layout", [DEBIAN, RHEL])
def test_without_apache(tmp_path: Path, layout: Layout) -> None:
    assert not listens_already(layout, 443, tmp_path)


@pytest.mark.parametrize(
    ("there", "address", "line"),
    [
        (False, "", "Listen 443"),
        (False, "127.0.0.1", "Listen 127.0.0.1:443"),
        (False, "::1", "Listen [::1]:443"),
        (True, "", "# Apache listens on 443 already."),
    ],
)
def test_the_monitors_host(
    there: bool, address: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "listens_already", lambda _layout, _port: there)
    choices = plan.Choices(layout=DEBIAN, address=address, monitor_port=443)

    def monitor(choices: plan.Choices) -> list[str]:
        (text,) = [f.text for f in plan.make_plan(choices, None).files if f.path.name == "panda-monitor.conf"]
        return text.splitlines()

    assert line in monitor(choices)
    # An Apache of its own listens by itself, whatever the one of the system does.
    assert not any("already" in each for each in monitor(replace(choices, prefix=tmp_path)))
