"""What a serving process does about the system it runs on."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

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
