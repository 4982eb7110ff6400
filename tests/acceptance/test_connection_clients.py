"""Foreign clients against `uvicorn --ws realtime.wire.connection:Connection`, with compression and without.

This module is the application too: at /shared every text comes back as a shared frame, at any other path as
ASGI has it; the text "close CODE" is answered with that close code.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate

from realtime.wire.connection import Connection
from realtime.wire.frames import Frame

CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WS_PACKAGE = "ws@8"
TEXTS = ["", "short", "héllo 🙂 " * 20, json.dumps([{"user_id": n, "score": n * 7} for n in range(300)]), "x" * 70_000]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<!doctype html><title>empty</title>"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/shared":
        connection: Connection = scope["extensions"]["realtime.connection"]
        connection.on_text = lambda payload: answer(connection, payload)
        connection.detach()
        return
    while (event := await receive())["type"] == "websocket.receive":
        await send(event | {"type": "websocket.send"})


def answer(connection: Connection, payload: bytes) -> None:
    if payload.startswith(b"close "):
        connection.close(int(payload[6:]), "as you wish")
    else:
        connection.write(Frame(payload))


@contextmanager
def started(*options: str) -> Iterator[int]:
    """The port of a server of its own process, started as a user would."""
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "uvicorn", "--ws", "realtime.wire.connection:Connection", "--port", "0", *options]
    command += ["--app-dir", str(folder), "--ws-max-size", "100000", f"{Path(__file__).stem}:app"]
    environment = {**os.environ, "PYTHONPATH": str(folder.parents[1])}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stderr is not None
    found = None
    for line in server.stderr:
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            break
    assert found, "the server did not start"
    yield int(found[1])
    server.terminate()
    log = server.stderr.read()
    server.stderr.close()
    assert server.wait(10) in (0, -15)
    assert "Traceback" not in log and "WebSocket" not in log


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with started("--loop", request.param) as port:
        yield port


deflate_or_not = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])


# Python: websockets


@deflate_or_not
async def test_websockets(port: int, deflate: bool) -> None:
    compression = "deflate" if deflate else None
    async with connect(f"ws://127.0.0.1:{port}/shared", compression=compression) as client:
        assert bool(client.protocol.extensions) is deflate
        for text in TEXTS:
            await client.send(text)
            assert await client.recv() == text
        await client.send(["in ", "several ", "pieces"])
        assert await client.recv() == "in several pieces"
        await (await client.ping(b"heartbeat"))
        await client.send("close 4408")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4408, "as you wish")
    async with connect(f"ws://127.0.0.1:{port}/asgi", compression=compression) as client:
        for data in (*TEXTS, b"", os.urandom(50_000), b"\0" * 50_000):
            await client.send(data)
            assert await client.recv() == data


@pytest.mark.parametrize("bits", range(9, 16))
async def test_websockets_with_every_window(port: int, bits: int) -> None:
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=bits)
    async with connect(f"ws://127.0.0.1:{port}/shared", extensions=[offer], compression=None) as client:
        agreed = client.protocol.extensions[0]
        assert isinstance(agreed, PerMessageDeflate)
        assert (agreed.remote_max_window_bits, agreed.remote_no_context_takeover) == (bits, True)
        for text in TEXTS * 2:
            await client.send(text)
            assert await client.recv() == text


async def test_a_message_over_uvicorns_own_limit_is_refused(port: int) -> None:
    async def close_code(client: ClientConnection, message: str) -> int | None:
        with pytest.raises(ConnectionClosed) as closed:
            await client.send(message)
            await client.recv()
        return closed.value.rcvd.code if closed.value.rcvd else None

    for compression in (None, "deflate"):
        async with connect(f"ws://127.0.0.1:{port}/shared", compression=compression) as client:
            assert await close_code(client, "x" * 100_001) == 1009


async def test_many_clients_at_once_get_what_each_asked_for(port: int) -> None:
    async def one(number: int) -> None:
        compression = "deflate" if number % 2 else None
        async with connect(f"ws://127.0.0.1:{port}/shared", compression=compression) as client:
            for turn in range(20):
                await client.send(f"{number} {turn} " * 30)
            for turn in range(20):
                assert await client.recv() == f"{number} {turn} " * 30

    await asyncio.gather(*(one(number) for number in range(50)))


# Python: websocket-client (knows no compression)


def test_websocket_client(port: int) -> None:
    client = websocket.create_connection(f"ws://127.0.0.1:{port}/shared", timeout=10)
    for text in TEXTS:
        client.send(text)
        assert client.recv() == text
    client.ping("heartbeat")
    opcode, frame = client.recv_data_frame(control_frame=True)
    assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"heartbeat")
    client.send("close 4001")
    opcode, data = client.recv_data()
    assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (4001).to_bytes(2, "big"))
    client.shutdown()
    client = websocket.create_connection(f"ws://127.0.0.1:{port}/asgi", timeout=10)
    client.send_binary(b"\0\xff" * 20_000)
    assert client.recv() == b"\0\xff" * 20_000
    client.close()


# Node: ws

NODE_SCRIPT = """
const WebSocket = require("ws");
const [url, deflate, texts] = JSON.parse(process.argv[1]);
const got = [];
const ws = new WebSocket(url, {perMessageDeflate: deflate});
ws.on("open", () => texts.forEach((text) => ws.send(text)));
ws.on("message", (data, binary) => {
  got.push(data.toString());
  if (got.length === texts.length) ws.ping("heartbeat");
});
ws.on("pong", () => ws.send("close 4002"));
ws.on("close", (code, reason) => console.log(JSON.stringify([ws.extensions, got, code, reason.toString()])));
"""


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds `ws`."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node's ws is not tested: npm or node is missing")
    folder = tmp_path_factory.mktemp("node")
    # Once: a registry that cannot be reached is not there a minute later either.
    install = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=0", "--prefix", str(folder), WS_PACKAGE]
    if subprocess.run(install, capture_output=True, cwd=folder, timeout=120).returncode:
        pytest.skip("Node's ws is not tested: npm could not install it")
    return folder


@pytest.mark.parametrize(
    "deflate",
    [False, True, {"threshold": 0}, {"serverMaxWindowBits": 9, "threshold": 0}, {"clientMaxWindowBits": 10}],
    ids=str,
)
def test_node_ws(port: int, node_folder: Path, deflate: Any) -> None:
    words = json.dumps([f"ws://127.0.0.1:{port}/shared", deflate, TEXTS])
    done = subprocess.run(["node", "-e", NODE_SCRIPT, words], capture_output=True, cwd=node_folder, timeout=30)
    assert done.returncode == 0, done.stderr
    extensions, got, code, reason = json.loads(done.stdout)
    assert (extensions == "permessage-deflate") is bool(deflate)
    assert (got, code, reason) == (TEXTS, 4002, "as you wish")


# Chromium

BROWSER_SCRIPT = """
([url, texts]) => new Promise((resolve) => {
  const got = [], ws = new WebSocket(url);
  ws.onopen = () => texts.forEach((text) => ws.send(text));
  ws.onmessage = ({data}) => {
    got.push(data);
    if (got.length === texts.length) ws.send("close 4003");
  };
  ws.onclose = ({code, reason, wasClean}) => resolve([ws.extensions, got, code, reason, wasClean]);
})
"""


async def seen_in_chromium(port: int) -> Any:
    """The extensions agreed on, the texts got back, and the close code and reason."""
    api = pytest.importorskip("playwright.async_api")
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{port}/")
        seen = await page.evaluate(BROWSER_SCRIPT, [f"ws://127.0.0.1:{port}/shared", TEXTS])
        await browser.close()
        return seen


with_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not tested: none is installed")


@pytest.mark.browser
@with_chromium
async def test_chromium(port: int) -> None:
    extensions, *seen = await seen_in_chromium(port)
    assert extensions.startswith("permessage-deflate")
    assert "server_no_context_takeover" in extensions and "client_no_context_takeover" in extensions
    assert seen == [TEXTS, 4003, "as you wish", True]


@pytest.mark.browser
@with_chromium
async def test_chromium_without_compression() -> None:
    with started("--ws-per-message-deflate", "False") as port:
        assert await seen_in_chromium(port) == ["", TEXTS, 4003, "as you wish", True]


# Handshakes by hand

OFFERS = {
    "": None,
    "permessage-deflate": "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9": "server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15": "server_max_window_bits=15",
    "permessage-deflate; client_max_window_bits": "client_no_context_takeover",
    "permessage-deflate; client_max_window_bits=8": "client_max_window_bits=8",
    # zlib makes no raw streams for so small a window: declined, or the next offer taken.
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": "server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=7": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=09": None,
    "permessage-deflate; server_max_window_bits=-9": None,
    'permessage-deflate; server_max_window_bits="12"': "server_max_window_bits=12",  # the same as without quotes
    "permessage-deflate; client_max_window_bits=16": None,
    "permessage-deflate; client_max_window_bits=7": None,
    "permessage-deflate; server_no_context_takeover=1": None,
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover": None,
    "permessage-deflate; client_max_window_bits=16, permessage-deflate; server_max_window_bits=10": (
        "server_max_window_bits=10"
    ),
    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=11": None,
    "permessage-deflate; unheard_of": None,
    "x-webkit-deflate-frame": None,
    "x-other, permessage-deflate; server_no_context_takeover": "server_no_context_takeover",
}


@pytest.mark.parametrize("offer", OFFERS)
def test_odd_deflate_windows_and_other_offers_are_answered_as_rfc_7692_has_it(port: int, offer: str) -> None:
    line = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(
            b"GET /shared HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + line.encode() + b"\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    agreed = re.search(rb"(?i)sec-websocket-extensions: (.*)\r\n", head)
    wanted = OFFERS[offer]
    assert (agreed is None) is (wanted is None)
    assert wanted is None or (agreed and wanted.encode() in agreed[1])
