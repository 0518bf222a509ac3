"""What a mail to a user says, and that hostile names do no harm in it."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver import config
from pandaserver.config import NotificationSection
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.mail import address_of, compose
from pandaserver.taskbuffer.notifications import Summary

TOLD = NotificationSection(smtp_host="mail", sender="panda@example.org", domain="cern.ch", monitor="https://mon.org")
WHEN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OWNER = "/DC=org/O=Grid/CN=Alice Adams"


def summary(owner: str = OWNER, name: str = "Alice Adams", definitions: tuple[int, ...] = (12,)) -> Summary:
    return Summary(owner, name, 12, {"finished": 10, "failed": 2}, definitions, WHEN)


@pytest.mark.parametrize(
    ("dn", "name", "domain", "address"),
    [
        ("/O=Grid/CN=Alice/emailAddress=a.adams@lab.org", "Alice", "cern.ch", "a.adams@lab.org"),
        ("/O=Grid/Email=alice@lab.org/CN=Alice", "Alice", "", "alice@lab.org"),
        ("/O=Grid/CN=Alice Adams", "Alice Adams", "cern.ch", "Alice.Adams@cern.ch"),
        ("/O=Grid/CN=J\xfcrgen M\xfcller", "J\xfcrgen M\xfcller", "cern.ch", "Jurgen.Muller@cern.ch"),
        ("/O=Grid/CN=Robot: Pilot 7", "Robot: Pilot 7", "cern.ch", "Robot.Pilot.7@cern.ch"),
        ("/O=Grid/CN=Alice/E=no address", "Alice", "cern.ch", "Alice@cern.ch"),
        ("/O=Grid/CN=Alice/E=a@b\r\nBcc: x@y.org", "Alice", "", None),
        ("/O=Grid/CN=Alice", "Alice", "", None),
        ("/O=Grid/CN=\u5f20\u4f1f", "\u5f20\u4f1f", "cern.ch", None),
    ],
)
def test_where_mail_goes(dn: str, name: str, domain: str, address: str | None) -> None:
    assert address_of(dn, name, domain) == address


def test_what_it_says() -> None:
    mail = compose(summary(), "alice@cern.ch", TOLD)
    assert mail["Subject"] == "PanDA: job set 12 is complete: 2 failed, 10 finished"
    assert mail["To"] == "Alice Adams <alice@cern.ch>"
    text = mail.get_content()
    assert "finished        10" in text
    assert "https://mon.org/jobs?owner=%2FDC%3Dorg%2FO%3DGrid%2FCN%3DAlice+Adams&hours=720&definition=12" in text
    assert "definition" not in compose(summary(definitions=(1, 2)), "alice@cern.ch", TOLD).get_content()
    assert bytes(mail) == bytes(compose(summary(), "alice@cern.ch", TOLD)), "the same again"


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_name_makes_a_header_or_another_recipient(name: str, dn: str) -> None:
    owner = dn.encode("utf-8", "replace").decode()
    mail = compose(summary(owner, name.encode("utf-8", "replace").decode()), "alice@cern.ch", TOLD)
    read = email.message_from_bytes(bytes(mail), policy=email.policy.SMTP)
    assert set(read.keys()) == set(mail.keys())
    assert [a.addr_spec for a in read["To"].addresses] == ["alice@cern.ch"]
    assert "Bcc" not in read


@pytest.mark.parametrize("name", ["Eve\r\nBcc: all@example.org", "Eve\n\nbody", "a, b@c.org", '"><x@y.z>', "\x00\x1b["])
def test_hostile_names(name: str) -> None:
    mail = compose(summary(name=name), "alice@cern.ch", TOLD)
    read = email.message_from_bytes(bytes(mail), policy=email.policy.SMTP)
    assert [a.addr_spec for a in read["To"].addresses] == ["alice@cern.ch"]
    assert read["Bcc"] is None
    assert read.get_content().replace("\r\n", "\n") == mail.get_content()


@pytest.mark.parametrize(
    ("key", "value"), [("sender", ""), ("sender", "nobody"), ("domain", "@x.org"), ("domain", "x org")]
)
def test_settings_that_cannot_be(tmp_path: config.Path, key: str, value: str) -> None:
    told = {"smtp_host": "mail.example.org", "sender": "panda@example.org"} | {key: value}
    needed = "[database]\nwrite = sqlite:///panda.db\n[cache]\ndirectory = cache\n[grid]\nsites = sites.cfg\n"
    path = tmp_path / "panda_server.cfg"
    path.write_text(needed + "[notification]\n" + "".join(f"{name} = {value}\n" for name, value in told.items()))
    with pytest.raises(ConfigError, match=rf"\[notification\] {key} = "):
        config.load(path)
