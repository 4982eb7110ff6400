"""The operations guide against the code: nothing that exists is left out, and nothing in it is missing."""

from __future__ import annotations

import html
import re
from pathlib import Path

import httpx

from realtime.errors import STATUS
from realtime.serving import LEAVING_A_SECOND, longest_leave
from realtime.settings import Settings, variables
from realtime.wire import CloseCode
from tests.conftest import RunningServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "web/docs"
GUIDE = (DOCS / "operations.html").read_text(encoding="utf-8")
PROTOCOL = (DOCS / "protocol.html").read_text(encoding="utf-8")


def test_every_close_and_error_code_is_explained() -> None:
    for page in (GUIDE, PROTOCOL):
        assert all(f"<td>{int(code)}</td>" in page for code in CloseCode)
        assert all(f"<td><code>{code}</code></td><td>{status}</td>" in page for code, status in STATUS.items())


async def test_every_metric_is_explained(server: RunningServer) -> None:
    shown = (await server.http.get("/metrics")).text
    names = set(re.findall(r"^# TYPE realtime_(\w+)", shown, re.MULTILINE))
    assert names
    assert [name for name in sorted(names) if f"<code>{name}</code>" not in GUIDE] == []


def test_every_setting_it_names_exists() -> None:
    assert set(re.findall(r"REALTIME_[A-Z_]+", GUIDE)) <= set(variables())


def test_the_figures_about_leaving_are_the_code_s() -> None:
    settings = Settings.load({})
    assert f"after {longest_leave(settings):g} s, always" in GUIDE
    assert f"{LEAVING_A_SECOND} a second" in GUIDE


def test_every_test_it_names_exists() -> None:
    named = set(re.findall(r"\b(test_\w+\.py)", GUIDE))
    assert named
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


async def test_every_link_leads_somewhere(server: RunningServer) -> None:
    for name in ("index", "operations", "protocol"):
        page = await server.http.get("/docs/" if name == "index" else f"/docs/{name}")
        assert page.status_code == 200
        assert not re.search(r"<style|\sstyle=|<script|\son\w+=", page.text), "the policy would stop it"
        ids = set(re.findall(r'id="([^"]+)"', page.text))
        for link in map(html.unescape, re.findall(r'(?:href|src)="([^"]+)"', page.text)):
            if link.startswith("#"):
                assert link[1:] in ids, link
            else:
                answer = await server.http.get(str(httpx.URL(str(page.url)).join(link)))
                assert answer.status_code == 200, f"{name}: {link}"
