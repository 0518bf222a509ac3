"""Mail to users: who gets it, what it says, and how it goes out; names from outside do no harm in it."""

from __future__ import annotations

import re
import smtplib
import ssl
import unicodedata
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlencode

from pandaserver.config import MAIL_ADDRESS, NotificationSection
from pandaserver.errors import BadInput, NotAvailable, shorten
from pandaserver.taskbuffer.notifications import Summary

_TIMEOUT_S = 30
_IN_DN = re.compile(r"/(?:emailAddress|Email|E)=([^/]+)")
_FIRST_REFUSAL_FOR_GOOD = 500


def address_of(dn: str, name: str, domain: str) -> str | None:
    """Find the address of a user: in the DN, else First.Last at the domain; None where there is neither."""
    told = _IN_DN.search(dn)
    if told and MAIL_ADDRESS.fullmatch(told[1]):
        return told[1]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    guessed = f"{'.'.join(re.findall('[A-Za-z0-9-]+', plain))}@{domain}"
    return guessed if domain and MAIL_ADDRESS.fullmatch(guessed) else None


def compose(summary: Summary, address: str, told: NotificationSection) -> EmailMessage:
    """Write the mail about a set; written again it is the same mail, which receivers may recognise."""
    user, _, domain = address.partition("@")
    counts = ", ".join(f"{number} {state}" for state, number in sorted(summary.counts.items()))
    message = EmailMessage(policy=SMTP)
    message["From"] = told.sender
    message["To"] = Address(shorten(summary.owner_name, 64), user, domain)
    message["Subject"] = f"PanDA: job set {summary.jobset_id} is complete: {counts}"
    message["Date"] = format_datetime(summary.completed_at)
    message["Message-ID"] = f"<{_mark(summary)}@{told.sender.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_text(summary, told.monitor))
    return message


def _mark(summary: Summary) -> str:
    digest = blake2b(summary.owner.encode(), digest_size=8).hexdigest()
    return f"panda-set-{summary.jobset_id}-{digest}"


def _text(summary: Summary, monitor: str) -> str:
    lines = [
        f"Hello {shorten(summary.owner_name, 64)},",
        "",
        f"all jobs of your job set {summary.jobset_id} have ended:",
        "",
        *(f"  {state:<10} {number:>7}" for state, number in sorted(summary.counts.items())),
        f"  {'all':<10} {sum(summary.counts.values()):>7}",
    ]
    if monitor:
        query = {"owner": summary.owner, "hours": "720"}
        query |= {"definition": str(summary.definitions[0])} if len(summary.definitions) == 1 else {}
        lines += ["", f"{monitor.rstrip('/')}/jobs?{urlencode(query)}"]
    return "\n".join([*lines, ""])


@dataclass(frozen=True)
class MailServer:
    """Where mail goes out."""

    host: str
    port: int
    starttls: bool
    ca_dir: Path

    def send(self, message: EmailMessage) -> None:
        """Hand a mail over.

        Raises:
            NotAvailable: not now; try again later.
            BadInput: the server will never take it.
        """
        try:
            with smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT_S) as smtp:
                if self.starttls:
                    smtp.starttls(context=self._tls())
                smtp.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            raise self._refusal(code, text) from error
        except smtplib.SMTPResponseException as error:
            raise self._refusal(error.smtp_code, error.smtp_error) from error
        except (OSError, smtplib.SMTPException) as error:
            raise NotAvailable(f"mail server {self.host}:{self.port}: {error}") from error

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca_dir.is_dir():
            context.load_verify_locations(capath=str(self.ca_dir))
        return context

    def _refusal(self, code: int, said: bytes | str) -> NotAvailable | BadInput:
        text = shorten(said.decode(errors="replace") if isinstance(said, bytes) else said)
        kind = BadInput if code >= _FIRST_REFUSAL_FOR_GOOD else NotAvailable
        return kind(f"mail server {self.host}:{self.port} answers {code} {text}")
