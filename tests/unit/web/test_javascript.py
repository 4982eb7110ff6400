"""The browser client's pure pieces, by the test runner of the Node that Playwright carries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import playwright
import pytest

NODE = Path(playwright.__file__).parent / "driver/node"
FILES = sorted(Path(__file__).parent.glob("js/*.test.js"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_javascript(file: Path) -> None:
    done = subprocess.run([NODE, "--test", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"pass [1-9]", done.stdout), "there was something to test"
