"""What a serving process does about the system it runs on, how it says that it is ready, and how it leaves."""

from __future__ import annotations

import logging
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from starlette.applications import Starlette

from realtime.server import serving
from realtime.settings import Settings
from tests.support.waiting import PATIENCE

LIMITS = """
import logging, resource, sys
from realtime.server.serving import FILES_BESIDE, open_many_files
from realtime.settings import Settings
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout, level=logging.DEBUG)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 1200))
settings = Settings.load({"REALTIME_MAX_CONNECTIONS": str(int(sys.argv[1]) - FILES_BESIDE)})
open_many_files(settings, *map(int, sys.argv[2:]))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("needed", "is_enough"), [(1200, True), (1201, False)])
def test_as_many_files_may_be_open_as_the_system_allows(needed: int, is_enough: bool) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", LIMITS, str(needed)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shown[-1] == "(1200, 1200)"
    assert len(shown) == (1 if is_enough else 2)
    if not is_enough:
        assert shown[0].startswith("WARNING ")
        assert "REALTIME_MAX_CONNECTIONS" in shown[0] and "1200 files" in shown[0] and "LimitNOFILE" in shown[0]


def test_too_few_open_files_are_no_warning_where_a_server_says_so() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", LIMITS, "1201", str(logging.INFO)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shown[0].startswith("INFO ") and "1200 files" in shown[0]


SERVES = """
import contextlib, os, signal, sys
from starlette.applications import Starlette
from realtime.errors import StartupError
from realtime.server import serving
from realtime.settings import Settings

what = sys.argv[1]

@contextlib.asynccontextmanager
async def lifespan(app):
    if what == "refuses":
        app.state.failure = StartupError("the ledger is of another world")
        raise app.state.failure
    if what == "fails":
        raise ZeroDivisionError
    yield
    print("put away", flush=True)

def ready(address):
    print("ready", address, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    if what == "is hurried":
        os.kill(os.getpid(), signal.SIGTERM)

app = Starlette(lifespan=lifespan)
patience = "600" if what == "is hurried" else "0"
settings = Settings.load({"REALTIME_PORT": "0", "REALTIME_DRAIN_S": patience, "REALTIME_RECONNECT_SPREAD_S": "0"})
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
try:
    print("ended", serving.run(app, settings, ready), getattr(app.state, "leaving", False))
except StartupError as error:
    print("refused", error)
print("handlers are back", before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
"""


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("serves", ["ready http://127.0.0.1:*", "put away", "ended True True"]),
        ("is hurried", ["ready http://127.0.0.1:*", "put away", "ended True True"]),
        ("refuses", ["refused the ledger is of another world"]),
        ("fails", ["ended False False"]),
    ],
)
def test_a_server_says_how_it_went_and_leaves_everything_as_it_was(what: str, says: list[str]) -> None:
    """`is hurried`: ten minutes' drain end at the second signal."""
    done = subprocess.run([sys.executable, "-c", SERVES, what], capture_output=True, text=True, timeout=PATIENCE)
    shown = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(shown) == len(says) + 1, shown
    assert all(fnmatch(line, pattern) for line, pattern in zip(shown, says, strict=False)), shown
    assert shown[-1] == "handlers are back True"


HANGS = """
import asyncio, signal, sys
from starlette.applications import Starlette
from realtime.server import serving
from realtime.settings import Settings
settings = Settings.load({"REALTIME_PORT": "0", "REALTIME_DRAIN_S": "0"})
serving.longest_leave = lambda settings: 0.5
server = serving.server(Starlette(), settings, print)
with server.capture_signals():
    signal.raise_signal(signal.SIGTERM)
    signal.pause()  # as a loop that no signal reaches any more
"""


def test_a_server_that_hangs_when_it_leaves_is_ended_by_its_watchdog() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "Timeout" in done.stderr, done.stderr
    assert "most recent call first" in done.stderr, "it says where it hung"


async def test_what_the_settings_say_of_clients_is_what_uvicorn_is_told() -> None:
    settings = Settings.load(
        {
            "REALTIME_MAX_MESSAGE_BYTES": "5000",
            "REALTIME_PING_INTERVAL_S": "7",
            "REALTIME_KEEP_ALIVE_S": "9",
            "REALTIME_TRUSTED_PROXIES": "10.0.0.1",
        }
    )
    config = serving.server(Starlette(), settings, print).config
    assert (config.ws_max_size, config.ws_ping_interval, config.ws_ping_timeout) == (5000, 7, 7)
    assert (config.timeout_keep_alive, config.proxy_headers, config.forwarded_allow_ips) == (9, True, "10.0.0.1")
    assert not config.access_log and config.log_config is None, "an address may carry a token"
    assert not serving.server(Starlette(), Settings.load({}), print).config.proxy_headers
