"""Files that travel with the package: SQL, Lua, web pages.

Owns where they lie: inside the package once installed, at the top level in a checkout. Must never write there. Assumes
that they do not change while a process runs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parent
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def folder(name: str) -> Path:
    """The folder `sql` or `web`, wherever this installation has it."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def queries() -> dict[str, str]:
    """Every query under sql/queries by its name: the text that follows a line `-- name: NAME`."""
    found: dict[str, str] = {}
    for path in sorted((folder("sql") / "queries").glob("*.sql")):
        pieces = _NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            assert name not in found, name
            found[name] = text.strip()
    return found


def script(name: str) -> str:
    """The Lua script `name`, without its extension."""
    return (_PACKAGE / "store" / "scripts" / f"{name}.lua").read_text(encoding="utf-8")
