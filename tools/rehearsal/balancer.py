"""A load balancer in a few lines: passes TCP through, by turns, to those front ends that are alive."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

_CHUNK = 65536
Back = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until there is no more."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


class Balancer:
    """Chooses front ends by turns."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports

    async def connect(self) -> Back | None:
        """Connect to the next front end that answers."""
        for _ in self._ports:
            self._ports.append(self._ports.pop(0))
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ports[-1])
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        back = await self.connect()
        if back is None:
            writer.close()
            return
        await asyncio.gather(pour(reader, back[1]), pour(back[0], writer))


async def run(port: int, ports: list[int]) -> None:
    """Balance until the process is ended."""
    server = await asyncio.start_server(Balancer(ports).serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("fronts", type=int, nargs="+")
    options = parser.parse_args()
    asyncio.run(run(options.port, options.fronts))


if __name__ == "__main__":
    main()
