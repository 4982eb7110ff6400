"""What is shipped: the wheel works far from a checkout, the sdist makes the same wheel, the files of a
deployment agree."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.clients import asking
from tests.support.processes import environment, running

ROOT = Path(__file__).parents[2]
FOLDERS = ("sql", "web", "realtime/store/scripts")


def build(source: Path, into: Path, kind: str) -> Path:
    """A distribution made by the build backend alone, in a process of its own; no network, nothing installed."""
    code = f"import hatchling.build as b, sys; print(b.build_{kind}(sys.argv[1]))"
    made = subprocess.run([sys.executable, "-c", code, str(into)], cwd=source, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return into / made.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


def shipped() -> set[str]:
    """Every file that a running server reads, as the wheel names it."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name if name.startswith("realtime/") else f"realtime/{name}" for name in listed.stdout.splitlines()}


def test_the_wheel_carries_every_file_a_server_reads_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert shipped() <= names
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "realtime" in tops, f"the package and its metadata, not {tops}"


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, tmp_path, "sdist")) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later ask for one
        archive.extractall(tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build(source, tmp_path, "wheel")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


async def test_up_runs_from_an_installed_wheel_far_from_any_checkout(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    # The dependencies are this environment's; the package itself can come from the wheel alone.
    env = environment(PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    where = "import realtime; print(realtime.__file__)"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", where], env=env, cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().startswith(str(installed))
    async with running("up", "--port", "0", "--data-dir", str(tmp_path / "data"), env=env, cwd=elsewhere) as command:
        address = await command.says("ready:")
        assert address.startswith("http://127.0.0.1:"), "nobody else gets at it"
        assert any(line.startswith("# for development") for line in command.lines)
        async with asking(address) as http:
            for path in ("/", "/overlay", "/docs/", "/static/css/tokens.css", "/boards", "/openapi.json"):
                assert (await http.get(path)).status_code == 200, path
        command.signal(signal.SIGTERM)
        assert await command.ends() == 0


def test_the_wheel_installs_into_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".tools/bin/uv"))
    if uv is None:
        pytest.skip("uv is not there: nothing is installed into a bare environment")
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    assert run(uv, "venv", "-q", "--python", sys.executable, "bare").returncode == 0
    made = run(uv, "pip", "install", "-q", "--python", "bare/bin/python", str(wheel))
    if made.returncode and any(word in made.stderr for word in ("network", "connect", "fetch", "resolve host")):
        pytest.skip("no package index answers: nothing is installed into a bare environment")
    assert made.returncode == 0, made.stderr
    assert run("bare/bin/realtime", "version").stdout.strip()
    assert "REALTIME_PORT" in run("bare/bin/realtime", "settings").stdout


def test_a_deployment_s_files_name_commands_that_exist() -> None:
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    for command in ("serve", "worker", "migrate"):
        assert f"realtime {command}" in procfile
        assert f'["realtime", "{command}"' in compose
    assert 'CMD ["realtime", "serve"]' in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_ci_runs_what_a_person_runs() -> None:
    assert "run: ./.ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci/run", os.X_OK)
