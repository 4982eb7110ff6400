"""Schemathesis against the served OpenAPI document: every operation, with data that fits it and data that does not.

Skipped where Schemathesis is not installed. Two of its checks are left out: "what violates the schema is refused"
(unknown parameters are ignored here, and of a list each bad row is answered alone) and "what fits the schema is
accepted" (an address, for one, must look like one).
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method"
)


@pytest.mark.parametrize("who", ["nobody", "player", "admin"])
async def test_what_the_document_says_is_what_happens(
    server: RunningServer, make_users: MakeUsers, tmp_path: Path, who: str
) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed")
    (user_id,) = await make_users(1)
    scopes = {"player": ("submit",), "admin": ("admin", "submit:any")}.get(who)
    headers = ["-H", f"Authorization: Bearer {server.token(user_id, *scopes)}"] if scopes else []
    options = ["--checks", CHECKS, "--max-examples", "15", "--no-color", "--suppress-health-check", "all"]
    options += ["--exclude-path-regex", "/events$"]  # a stream does not end
    command = [program, "run", f"{server.base_url}/openapi.json", *headers, *options, "--seed", "1"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert (await server.http.get("/readyz")).status_code == 200
