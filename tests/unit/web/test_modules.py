"""The pages' scripts as a whole: what each page loads, and what the modules of each room may touch.

Reads the files only: what they do is shown by js/*.test.js and by tests/browser.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "web"
JS = WEB / "js"
PAGES = ("index.html", "overlay.html", "play.html", "setup.html", "docs/element.html")
MODEL = sorted(path.relative_to(JS).as_posix() for path in (JS / "model").rglob("*.js"))
HOST = r"(?<![\w.'])(document|window|location|localStorage|sessionStorage|history|navigator|fetch|WebSocket|set\w+)\b"
SCRIPT = re.compile(r'<script type="module" src="(?:\.\./)*static/js/([\w/-]+\.js)"')
PRELOAD = re.compile(r'"modulepreload" href="(?:\.\./)*static/js/([\w/-]+\.js)"')


def imported_by(name: str) -> list[str]:
    """The modules that one names, as paths below web/js. One that is imported later, by `import()`, is none of them."""
    text = (JS / name).read_text(encoding="utf-8")
    found = re.findall(r"^import (?:.* from )?'(\.[^']*)';", text, re.MULTILINE)
    return [posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in found]


@pytest.mark.parametrize("name", PAGES)
def test_every_module_is_asked_for_at_once(name: str) -> None:
    """A module that only another one names would start to load when that one is here: a wait for each link."""
    html = (WEB / name).read_text(encoding="utf-8")
    (entry,) = SCRIPT.findall(html)
    needed = {entry}
    todo = [entry]
    while todo:
        for found in imported_by(todo.pop()):
            if found not in needed:
                needed.add(found)
                todo.append(found)
    listed = PRELOAD.findall(html)
    assert set(listed) == needed - {entry}
    assert len(listed) == len(set(listed)), "each once"


def test_an_import_has_one_line_that_these_tests_can_read() -> None:
    for path in JS.rglob("*.js"):
        statements = re.findall(r"^import\b(?!\().*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(statements) == len(imported_by(path.relative_to(JS).as_posix())), path


@pytest.mark.parametrize("name", MODEL)
def test_a_module_of_model_touches_nothing_of_the_page_and_imports_its_own_room_alone(name: str) -> None:
    text = (JS / name).read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/|(?m://.*$)", "", text, flags=re.DOTALL)
    assert not re.findall(HOST, code)
    assert [path for path in imported_by(name) if not path.startswith("model/")] == []


def test_a_module_of_view_imports_no_page() -> None:
    for path in (JS / "view").rglob("*.js"):
        assert not any(found.startswith("pages/") for found in imported_by(path.relative_to(JS).as_posix())), path


def test_every_module_says_first_what_it_owns() -> None:
    for path in JS.rglob("*.js"):
        assert path.read_text(encoding="utf-8").startswith("// Owns "), path
