"""The operations guide against the code: nothing that exists is left out, and nothing in it is missing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import jsonschema
import pytest
import yaml
from typer.models import CommandInfo

from realtime.api.openapi import OPERATIONS
from realtime.api.schemas import FROM_CLIENT, FROM_SERVER, SHAPES
from realtime.cli.main import cli
from realtime.errors import STATUS
from realtime.server.draining import LEAVING_A_SECOND, longest_leave
from realtime.settings import Settings, variables
from realtime.wire.close_codes import CloseCode
from tests.support.servers import RunningServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "web/docs"
GUIDE = (DOCS / "operations.html").read_text(encoding="utf-8")
PROTOCOL = (DOCS / "protocol.html").read_text(encoding="utf-8")


def test_every_close_and_error_code_is_explained() -> None:
    for page in (GUIDE, PROTOCOL):
        assert all(f"<td>{int(code)}</td>" in page for code in CloseCode)
        assert all(f"<td><code>{code}</code></td><td>{status}</td>" in page for code, status in STATUS.items())


def test_every_close_code_that_the_server_uses_is_one_of_these() -> None:
    """Also where a layer that knows no codes of ours closes by the RFC's numbers."""
    used: set[int] = set()
    for path in (ROOT / "realtime").rglob("*.py"):
        found = re.findall(r"(?:ViolationError|Close|_send_close|\.close)\((\d{4})\b", path.read_text(encoding="utf-8"))
        used |= {int(code) for code in found}
    assert used >= {1003, 1012}, "this looks in the right places"
    assert used <= set(CloseCode)


def test_every_message_field_and_route_is_explained() -> None:
    for kind, schema in {**FROM_CLIENT, **FROM_SERVER}.items():
        (row,) = re.findall(rf"<tr><td><code>{kind}</code></td><td>(.*?)</td>", PROTOCOL)
        told = {name: not absent for name, absent in re.findall(r"<code>(\w+)</code>(\?)?", row)}
        fields = {name: name in schema["required"] for name in schema["properties"] if name != "type"}
        assert told == fields, kind
    for operation in OPERATIONS:
        assert f"<td><code>{operation.method.upper()} {operation.path}</code></td>" in PROTOCOL


def test_every_message_that_is_shown_is_as_documented() -> None:
    lines = re.findall(r"^(?:<pre[^>]*><code>)?(client|server)  (\{.*\})", PROTOCOL, re.MULTILINE)
    assert len(lines) > 10
    for who, text in lines:
        message = json.loads(html.unescape(text))
        schema = {"client": FROM_CLIENT, "server": FROM_SERVER}[who][message["type"]]
        jsonschema.validate(message, {**schema, "components": {"schemas": SHAPES}})
        assert set(message) <= set(schema["properties"]), text


async def test_every_metric_is_explained(server: RunningServer) -> None:
    shown = (await server.http.get("/metrics")).text
    names = set(re.findall(r"^# TYPE realtime_(\w+)", shown, re.MULTILINE))
    assert names
    assert [name for name in sorted(names) if f"<code>{name}</code>" not in GUIDE] == []


def test_every_action_of_the_log_is_named() -> None:
    sources = (ROOT / "realtime").rglob("*.py")
    actions = {name for path in sources for name in re.findall(r'"action": "(\w+)"', path.read_text(encoding="utf-8"))}
    assert len(actions) > 20
    assert [name for name in sorted(actions) if f"<code>{name}</code>" not in GUIDE] == []


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
async def test_what_the_dashboard_and_the_alerts_ask_for_exists(server: RunningServer, name: str) -> None:
    shown = (await server.http.get("/metrics")).text
    exists = set(re.findall(r"^# TYPE (realtime_\w+)", shown, re.MULTILINE))
    asks = (DOCS / name).read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(realtime_\w+?)(?:_bucket)?\b(?=[{\s)\[,])", asks))
    assert len(asked) > 8
    assert sorted(asked - exists) == []


def test_the_dashboard_is_one_and_the_alerts_say_what_to_do() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places) > 20
    assert all(place["x"] + place["w"] <= 24 for place in places)
    (group,) = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        assert {"summary", "do"} == rule["annotations"].keys()
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "rules", DOCS / "alerts.yml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_it_names_exists() -> None:
    assert set(re.findall(r"REALTIME_[A-Z_]+", GUIDE)) <= set(variables())


def test_the_page_of_settings_names_every_one_and_no_other() -> None:
    page = (ROOT / "web/docs/settings.html").read_text(encoding="utf-8")
    assert set(re.findall(r"<td><code>([A-Z_]+)</code></td>", page)) == set(variables())


def test_the_figures_about_leaving_are_the_code_s() -> None:
    settings = Settings.load({})
    assert f"after {longest_leave(settings):g} s, always" in GUIDE
    assert f"{LEAVING_A_SECOND} a second" in GUIDE


def test_every_section_says_what_shows_it_and_that_exists() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    benchmarks = {path.stem for path in (ROOT / "tests/benchmarks").glob("*.py")}
    _, *sections = re.split(r'<h2 id="(\w+)">', GUIDE)
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        if name == "parts":  # says what there is, and promises nothing
            continue
        (shown, *_) = re.findall(r'<p class="shown">(Shown by .*?)</p>', text)
        named = set(re.findall(r"\b(test_\w+\.py)", shown))
        measured = set(re.findall(r"python -m tests\.benchmarks[. ](\w+)", shown))
        if "benchmark beside each" in shown:
            measured |= set(re.findall(r"<td><code>(\w+)</code>(?:, [^<]*)?</td></tr>", text))
        assert named | measured, name
        assert named <= tests, name
        assert measured <= benchmarks, name


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"\btests/\w+/\w+\.py", GUIDE))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {" ".join(words) for words in re.findall(r"^\| `realtime (\w+)(?: ([a-z]+))?", text, re.MULTILINE)}
    groups = {group.name: group.typer_instance for group in cli.registered_groups}
    by_themselves = {name for name, group in groups.items() if group is not None and group.registered_callback}
    there = {_name(command) for command in cli.registered_commands} | by_themselves
    for name, group in groups.items():
        assert group is not None
        there |= {f"{name} {_name(command)}" for command in group.registered_commands}
    assert {name.strip() for name in listed} == there


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__


async def test_every_link_leads_somewhere(server: RunningServer) -> None:
    names = sorted(path.stem for path in (ROOT / "web/docs").glob("*.html"))
    assert "element" in names
    for name in names:
        page = await server.http.get("/docs/" if name == "index" else f"/docs/{name}")
        assert page.status_code == 200
        markup = re.sub(r"<pre.*?</pre>", "", page.text, flags=re.DOTALL)
        forbidden = r"<style|\sstyle=|<script(?! type=.module. src=)|\son\w+="
        assert not re.search(forbidden, markup), "the policy would stop it"
        ids = set(re.findall(r'id="([^"]+)"', page.text))
        for link in map(html.unescape, re.findall(r'(?:href|src)="([^"]+)"', page.text)):
            if link.startswith("#"):
                assert link[1:] in ids, link
            elif not link.startswith("https://"):  # what others serve is theirs, and away where there is no internet
                answer = await server.http.get(str(httpx.URL(str(page.url)).join(link)))
                assert answer.status_code == 200, f"{name}: {link}"
