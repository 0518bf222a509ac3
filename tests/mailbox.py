"""A mail server for tests: it takes what comes, refuses what a test wants refused, and keeps the rest."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass
class Mailbox:
    """What has arrived; `answer` replaces the 250 that the end of a mail is answered with."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    answer: str = "250 ok"
    rcpt_answer: str = "250 ok"
    encrypted: bool = False
    context: ssl.SSLContext | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak as much SMTP as a client needs."""
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._say(writer, "220 sink")
        while line := (await reader.readline()).decode("ascii").strip():
            word = line.split(":")[0].upper()
            if word.startswith("EHLO"):
                self._say(writer, "250-sink\r\n250 STARTTLS" if self.context else "250 sink")
            elif word == "STARTTLS":
                self._say(writer, "220 go on")
                await writer.drain()
                await writer.start_tls(self.context)  # type: ignore[arg-type]
                self.encrypted = True
            elif word == "RCPT TO":
                self.recipients.append(line.partition(":")[2].strip("<>"))
                self._say(writer, self.rcpt_answer)
            elif word == "DATA":
                self._say(writer, "354 go on")
                self._keep(await reader.readuntil(b"\r\n.\r\n"))
                self._say(writer, self.answer)
            elif word == "QUIT":
                self._say(writer, "221 bye")
                return
            else:
                self._say(writer, "250 ok")

    def _keep(self, data: bytes) -> None:
        if self.answer.startswith("250"):
            self.mails.append(email.message_from_bytes(data[:-5], policy=email.policy.SMTP))  # type: ignore[arg-type]

    @staticmethod
    def _say(writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(f"{text}\r\n".encode())


@contextmanager
def mailbox(context: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """Run one on a free port of this machine; with STARTTLS where there is a context."""
    box, ready, stop = Mailbox(context=context), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
        box.port = server.sockets[0].getsockname()[1]
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield box
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)
