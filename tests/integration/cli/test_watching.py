"""top and doctor: what they find out of a real server and real stores, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime.cli.watching import drawn, scraped, summary
from realtime.errors import StartupError
from tests.support.processes import environment, free_port, running
from tests.support.servers import SECRET, RunningServer

NOWHERE = "postgresql://u:hush@127.0.0.1:1/x"  # nothing listens on port 1

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def buckets(name: str, counts: dict[str, float]) -> Samples:
    return {(f"realtime_{name}_bucket", (("le", bound),)): count for bound, count in counts.items()}


def test_rates_are_between_two_looks_and_quantiles_of_what_came_in_between() -> None:
    accepted, latency = "realtime_accepted_total", "submit_to_diff_seconds"
    before = {(accepted, (("of", "lap"),)): 100.0, **buckets(latency, {"0.01": 50, "0.1": 100, "+Inf": 100})}
    after = {
        (accepted, (("of", "lap"),)): 140.0,
        (accepted, (("of", "new"),)): 10.0,
        ("realtime_connections", ()): 7.0,
        ("realtime_followers", (("of", "lap"),)): 3.0,
        ("realtime_followers", (("of", "gone"),)): 0.0,
        **buckets(latency, {"0.01": 149, "0.1": 199, "+Inf": 200}),
    }
    seen = summary(before, after, 2.0)
    assert seen["accepted_a_second"] == {"lap": 20.0, "new": 5.0}
    assert (seen["connections"], seen["followers"]) == (7.0, {"lap": 3.0})
    assert seen["submission_to_diff_ms"] == {"p50": 10.0, "p99": 10.0}
    assert seen["commit_ms"] == {"p50": None, "p99": None}
    assert drawn("http://here", seen)


def test_what_is_no_server_is_told() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "ftp://somewhere", ":"):
        with pytest.raises(StartupError, match=r"No server answers|no address"):
            scraped(url)


async def test_top_shows_a_running_server(server: RunningServer) -> None:
    async with running("top", server.base_url, "--once", "--json", env=environment()) as command:
        assert await command.ends() == 0
    (line,) = command.lines
    assert json.loads(line)["live"] == 1.0
    async with running("top", f"{server.base_url}/metrics", "--once", env=environment()) as command:
        assert await command.ends() == 0
    assert any(line.startswith("stores") and "PostgreSQL answers" in line for line in command.lines)


def on(dsn: str, store_url: str, **more: str) -> dict[str, str]:
    return environment(DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, **more)


async def examined(env: dict[str, str], tmp_path: Path) -> tuple[int, dict[str, dict[str, str]]]:
    async with running("doctor", "--json", "--data-dir", str(tmp_path / "none"), env=env) as command:
        code = await command.ends()
    found = [json.loads(line) for line in command.lines]
    return code, {one["about"]: one for one in found}


async def test_doctor_finds_nothing_wrong_with_a_sound_deployment(
    dsn: str, store_url: str, filled: None, tmp_path: Path
) -> None:
    code, found = await examined(on(dsn, store_url, REALTIME_MAX_CONNECTIONS="100"), tmp_path)
    assert code == 0
    assert {"Settings", "Open files", "PostgreSQL", "Standby", "Schema", "Outbox", "Store", "Content"} <= found.keys()
    assert [one for one in found.values() if one["verdict"] == "wrong"] == []
    assert "UTF8" in found["PostgreSQL"]["said"]


@pytest.mark.parametrize(
    ("damage", "about", "says"),
    [
        (lambda env: env.update(REALTIME_SECRET="short", REALTIME_PORT="many"), "Settings", "REALTIME_"),
        (lambda env: env.update(DATABASE_URL=NOWHERE), "PostgreSQL", "reached"),
        (lambda env: env.update(DRAGONFLY_URL="redis://:hush@127.0.0.1:1/0"), "Store", "reached"),
    ],
    ids=["settings", "database", "store"],
)
async def test_doctor_says_what_is_wrong_and_no_secret(
    dsn: str,
    store_url: str,
    filled: None,
    tmp_path: Path,
    damage: Callable[[dict[str, str]], None],
    about: str,
    says: str,
) -> None:
    env = on(dsn, store_url)
    damage(env)
    code, found = await examined(env, tmp_path)
    assert code == 1
    assert found[about]["verdict"] == "wrong"
    assert says in found[about]["said"]
    assert found[about]["remedy"]
    assert "hush" not in json.dumps(found)


async def test_doctor_names_migrations_that_are_missing(empty_dsn: str, store_url: str, tmp_path: Path) -> None:
    code, found = await examined(on(empty_dsn, store_url), tmp_path)
    assert code == 1
    assert "0006_leaderboards" in found["Schema"]["said"]
    assert found["Schema"]["remedy"] == "Run `realtime migrate`."
