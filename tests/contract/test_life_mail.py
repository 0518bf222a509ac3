"""Users hear by mail that all jobs of a set have ended: once, with what became of them, and in nobody's way."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from mailbox import Mailbox, mailbox
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid

from pandaserver.app import Installation, create_app
from pandaserver.background import notifying
from pandaserver.config import NotificationSection
from pandaserver.taskbuffer import archive, notifications, schema, work

PERIOD_S = 70


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


def section(box: Mailbox, **more: Any) -> NotificationSection:
    told = {"smtp_host": "127.0.0.1", "smtp_port": box.port, "starttls": False, "sender": "panda@example.org"}
    return NotificationSection(**(told | {"domain": "example.org", "monitor": "https://monitor.example.org/"} | more))


def switch(grid: Grid, told: NotificationSection) -> None:
    """Restart the server with other settings of the mail."""
    old = grid.server.installation
    installation: Installation = replace(old, config=replace(old.config, notification=told))
    grid.close()
    grid.clients.clear()
    grid.server = create_app(installation, grid.clock, callback=grid.called_back)
    grid.watch(PERIOD_S)  # what was before is not told


def end_all(grid: Grid, queue: str = "UTA", outcome: str = "finished") -> None:
    while (job := grid.get_job(queue))["StatusCode"] == 0:
        grid.run_job(job, outcome=outcome)
        grid.work()


def look(grid: Grid) -> None:
    grid.watch(PERIOD_S)


def submit(grid: Grid, number: int = 1, **more: Any) -> list[int]:
    ids = grid.submit(*(f.analysis_job(computingSite="UTA", **more) for _ in range(number)))
    grid.work()
    return ids


def test_a_set_that_is_complete_is_told_once(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    ids = submit(grid, 3, maxAttempt=1)
    grid.run_job(grid.get_job("UTA"))
    grid.run_job(grid.get_job("UTA"), outcome="failed", pilotErrorCode=1305)
    look(grid)
    assert box.mails == [], "one job goes on"
    grid.run_job(grid.get_job("UTA"))
    grid.work()
    assert {grid.state(i) for i in ids} == {"finished", "failed"}
    for _ in range(3):
        look(grid)
    (mail,) = box.mails
    assert re.fullmatch(r"PanDA: job set \d+ is complete: 1 failed, 2 finished", mail["Subject"])
    assert (mail["From"], box.recipients) == ("panda@example.org", ["Alice.Adams@example.org"])
    assert (mail["Auto-Submitted"], len(mail.get_all("Message-ID") or [])) == ("auto-generated", 1)
    text = mail.get_content()
    assert re.search(r"failed +1\r?\n +finished +2\r?\n +all +3", text), text
    assert "https://monitor.example.org/jobs?owner=%2FDC" in text
    assert grid.buffer.read(work.pending) in ({}, {"sweep": 1})


def test_production_is_not_told(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    grid.submit(f.production_job(computingSite="BNL"), who="prodman")
    grid.work()
    end_all(grid, "BNL")
    look(grid)
    assert box.mails == []


def test_each_user_and_each_set_by_itself(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    submit(grid, 2)
    submit(grid, 1)
    grid.submit(f.analysis_job(computingSite="UTA"), who="bob")
    grid.work()
    end_all(grid)
    look(grid)
    assert sorted(box.recipients) == ["Alice.Adams@example.org", "Alice.Adams@example.org", "Bob.Brown@example.org"]
    assert len({mail["Message-ID"] for mail in box.mails}) == 3


def test_submissions_of_one_jobset_are_one_set(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    submit(grid, 1, jobsetID=77)
    submit(grid, 2, jobsetID=77)
    grid.run_job(grid.get_job("UTA"))
    grid.work()
    look(grid)
    assert box.mails == []
    end_all(grid)
    look(grid)
    assert [mail["Subject"] for mail in box.mails] == ["PanDA: job set 77 is complete: 3 finished"]


def test_off_means_no_mail_and_no_trace(grid: Grid, box: Mailbox) -> None:
    submit(grid)
    end_all(grid)
    look(grid)
    assert (box.mails, grid.buffer.read(work.pending)) == ([], {})
    assert grid.buffer.read(lambda c: c.execute(sa.select(schema.notifications)).all()) == []
    switch(grid, section(box))
    look(grid)
    assert box.mails == [], "what was before it was switched on is not told"


def test_mail_that_is_wanted_when_it_is_switched_off_is_dropped(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    submit(grid)
    end_all(grid)
    grid.clock.forward(PERIOD_S)
    grid.server.duties.run_due()
    assert grid.buffer.read(work.pending) == {"notify": 1}
    switch(grid, NotificationSection())
    assert (box.mails, grid.buffer.read(work.pending)) == ([], {})


def test_a_mail_server_that_is_away_is_tried_again_and_holds_up_nobody(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    box.answer = "451 try again later"
    submit(grid)
    end_all(grid)
    for _ in range(3):
        look(grid)
    assert (box.mails, grid.buffer.read(work.pending)) == ([], {"notify": 1})
    (job_id,) = submit(grid)
    end_all(grid)
    assert grid.state(job_id) == "finished"
    box.answer = "250 ok"
    for _ in range(3):
        grid.watch(300)
    assert len(box.mails) == 2


def test_a_mail_server_that_is_not_there(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box, smtp_port=1))
    submit(grid)
    end_all(grid)
    look(grid)
    assert grid.buffer.read(work.pending) == {"notify": 1}
    for _ in range(4):
        grid.watch(8 * 3600)
    assert grid.buffer.read(work.pending) == {}, "after a day nobody wants to hear of it"


@pytest.mark.parametrize("refused", ["answer", "rcpt_answer"])
def test_a_mail_that_is_refused_for_good_is_not_sent_again(grid: Grid, box: Mailbox, refused: str) -> None:
    switch(grid, section(box))
    setattr(box, refused, "550 there is nobody of that name")
    submit(grid)
    end_all(grid)
    for _ in range(3):
        look(grid)
    assert (box.mails, len(box.recipients), grid.buffer.read(work.pending)) == ([], 1, {})


def test_a_user_without_an_address_is_not_told(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box, domain=""))
    submit(grid)
    end_all(grid)
    look(grid)
    assert (box.recipients, grid.buffer.read(work.pending)) == ([], {})
    (row,) = grid.buffer.read(lambda c: c.execute(sa.select(schema.notifications)).all())
    assert (row.address, row.told_at is not None) == (None, True)


def test_a_crash_between_mail_and_commit_repeats_the_same_mail(
    grid: Grid, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(grid, section(box))
    submit(grid)
    end_all(grid)
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise RuntimeError("killed")

        patch.setattr(notifications, "note_told", die)
        look(grid)
    for _ in range(3):
        look(grid)
    assert len(box.mails) == 2
    assert len({(mail["Message-ID"], mail["Date"], mail["Subject"]) for mail in box.mails}) == 1


def test_jobs_that_are_in_the_archive_already_are_counted(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box))
    submit(grid, 2, jobsetID=5)
    grid.run_job(grid.get_job("UTA"))
    grid.work()
    late = grid.clock.now
    due = archive.Due(late, late)

    def move(connection: Any) -> int:
        return archive.move(connection, archive.find_due(connection, due, 100))

    assert grid.buffer.run(move) == 1
    end_all(grid)
    look(grid)
    assert [mail["Subject"] for mail in box.mails] == ["PanDA: job set 5 is complete: 2 finished"]


def test_two_servers_that_look_at_the_same_time_tell_once(grid: Grid, box: Mailbox) -> None:
    told = section(box)
    switch(grid, told)
    submit(grid)
    end_all(grid)
    server = notifying.MailServer(told.smtp_host, told.smtp_port, told.starttls, f.Path("none"))
    looks = [notifying.Notifier(grid.buffer, told, server).look() for _ in range(3)]
    assert looks == [1, 0, 0]
    grid.work()
    assert len(box.mails) == 1


def test_tls_is_asked_for_and_the_certificate_looked_at(grid: Grid) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(grid.pki.directory / "hostcert.pem", grid.pki.directory / "hostkey.pem")
    with mailbox(context) as box:
        switch(grid, section(box, starttls=True, smtp_host="localhost"))
        submit(grid)
        end_all(grid)
        look(grid)
        assert (len(box.mails), box.encrypted) == (1, True)


def test_a_server_without_tls_gets_nothing_where_tls_is_wanted(grid: Grid, box: Mailbox) -> None:
    switch(grid, section(box, starttls=True))
    submit(grid)
    end_all(grid)
    look(grid)
    assert (box.mails, box.recipients, grid.buffer.read(work.pending)) == ([], [], {"notify": 1})
