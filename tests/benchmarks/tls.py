"""What a delivery costs where the server speaks TLS itself, beside the same without.

`python -m tests.benchmarks tls`. `Connection` under uvicorn, as it works alone, and one ready frame for everybody: with
TLS it goes through the transport, which encrypts it once for each. The servers are pinned to the first core, their
audiences to the last; windows alternate.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.benchmarks.fanout_floor import serve
from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import HZ, ended, pinned
from tests.support.certificates import certified

CLIENTS = 500
SECONDS = 2.0
WINDOWS = 5
BYTES = 135
"""Of a one-row diff."""

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: audience\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Side:
    """A server and its audience."""

    def __init__(self, stack: ExitStack, *certificate: Path) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.tls"]
        self._server = stack.enter_context(
            ended(pinned(0, *command, "serve", *certificate, stdin=-1, stdout=-1, bufsize=1))
        )
        port = self._line()[0]
        audience = stack.enter_context(
            ended(pinned(-1, *command, "listen", port, str(CLIENTS), *certificate[:1], stdout=-1))
        )
        assert audience.stdout is not None
        if audience.stdout.readline().strip() != "ready":
            raise SystemExit(f"an audience of {CLIENTS} could not connect to port {port}")

    def _line(self) -> list[str]:
        assert self._server.stdout is not None
        return self._server.stdout.readline().split()

    def window(self) -> float:
        """Microseconds of server CPU a delivery."""
        assert self._server.stdin is not None
        for seconds in (1.2, SECONDS):  # sockets that were idle acknowledge packet by packet at first
            self._server.stdin.write(f"send Connection_write {seconds} {HZ} {BYTES}\n")
            deliveries, used = self._line()
        return float(used) / int(deliveries) * 1e6


def run() -> list[Table]:
    """The table of this benchmark."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = {"plain": Side(stack), "TLS": Side(stack, *certified(Path(folder)))}
        costs: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(WINDOWS):
            for name, side in sides.items():
                costs[name].append(side.window())
    title = f"Server CPU a delivery with and without TLS, {CLIENTS:,} subscribers, {HZ} times a second, {BYTES} bytes"
    table = Table(title, ("connection", "us", "ratio", "lowest", "highest"))
    for name, values in costs.items():
        table.add(name, median(values), median(values) / median(costs["plain"]), min(values), max(values))
    return [table]


# The processes ---------------------------------------------------------------------------------------------------


async def _listen(port: int, clients: int, certificate: str | None) -> None:
    """Sockets that read and forget. Ends only when it is ended."""
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    writers: list[asyncio.StreamWriter] = []  # one that nobody holds closes its socket
    for _ in range(clients):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
        transport = writer.transport
        transport.set_protocol(asyncio.Protocol())
        transport.resume_reading()
    print("ready", flush=True)
    await asyncio.Event().wait()


def _main(role: str, *words: str) -> None:
    if role == "listen":
        port, clients, *certificate = words
        uvloop.run(_listen(int(port), int(clients), certificate[0] if certificate else None))
    else:
        options = dict(zip(("ssl_certfile", "ssl_keyfile"), words, strict=False))
        uvloop.run(serve(**options))


if __name__ == "__main__":
    _main(*sys.argv[1:])
