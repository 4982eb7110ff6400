"""The pages as a browser gets them: types, policies, keeping, compression, prefixes and paths astray."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from realtime.api import pages

WEB = Path(__file__).parents[3] / "web"
KEPT = "public, max-age=31536000, immutable"


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Starlette(routes=pages.routes(WEB)))  # answers HTTPException by itself
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        yield client


def assets_of(html: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]*static/[^"]+)"', html)


@pytest.mark.parametrize("address", ["/", "/overlay", "/overlay/setup", "/play"])
async def test_each_page_names_only_assets_that_exist_and_may_be_kept_for_ever(
    browser: httpx.AsyncClient, address: str
) -> None:
    page = await browser.get(address)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    found = assets_of(page.text)
    assert len(found) >= 3
    for relative in found:
        asset = await browser.get(str(page.url.join(relative)))
        assert asset.status_code == 200, relative
        assert asset.headers["cache-control"] == KEPT


@pytest.mark.parametrize("address", ["/", "/overlay", "/overlay/setup", "/play"])
async def test_pages_carry_a_strict_policy_and_no_code(browser: httpx.AsyncClient, address: str) -> None:
    page = await browser.get(address)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert ("unsafe" in policy) == (address == "/overlay"), "streaming programs put their user's style sheet into it"
    assert "unsafe" not in re.sub("style-src [^;]+", "", policy)
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page.text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page.text)
    assert not re.search(r'(?:href|src)="(?:https?:)?//', page.text), "no request to any other host"


async def test_an_overlay_may_be_framed_anywhere_and_a_sign_in_nowhere(browser: httpx.AsyncClient) -> None:
    for address in ("/play", "/overlay/setup"):
        policy = (await browser.get(address)).headers["content-security-policy"]
        assert policy.endswith("frame-ancestors 'none'"), address
    overlay = (await browser.get("/overlay")).headers
    assert "frame-ancestors" not in overlay["content-security-policy"]
    assert overlay["cross-origin-resource-policy"] == "cross-origin"
    assert overlay["cross-origin-embedder-policy"] == "credentialless"


async def test_all_addresses_are_relative_so_that_any_prefix_works(browser: httpx.AsyncClient) -> None:
    for address in ("/", "/overlay", "/overlay/setup", "/play"):
        html = (await browser.get(address)).text
        assert not re.search(r'(?:href|src|action)="/', html), address


async def test_conditions_are_about_the_body_that_would_be_sent(browser: httpx.AsyncClient) -> None:
    plain, packed = [
        (await browser.get("/", headers={"accept-encoding": coding})).headers["etag"] for coding in ("identity", "gzip")
    ]
    assert plain != packed

    async def asked(coding: str, *conditions: tuple[str, str]) -> tuple[int, str]:
        answer = await browser.get("/", headers=[("accept-encoding", coding), *conditions])
        return answer.status_code, answer.headers["etag"]

    for coding, mine, other in (("identity", plain, packed), ("gzip", packed, plain)):
        for tags in (mine, f"W/{mine}", f'"x", {mine}', "*", f'"a,b",{mine}'):
            assert await asked(coding, ("if-none-match", tags)) == (304, mine)
        assert await asked(coding, ("if-none-match", '"x"'), ("if-none-match", mine)) == (304, mine), "a second line"
        for tags in (other, '"x"', f'"x,{mine[1:]}', "x"):
            assert await asked(coding, ("if-none-match", tags)) == (200, mine)
        for tags in (mine, f'"x", {mine}', "*"):
            assert await asked(coding, ("if-match", tags)) == (200, mine)
        for tags in (other, '"x"', f"W/{mine}", ""):
            assert await asked(coding, ("if-match", tags)) == (412, mine)
        assert await asked(coding, ("if-match", mine), ("if-none-match", mine)) == (304, mine)
        assert await asked(coding, ("if-match", '"x"'), ("if-none-match", mine)) == (412, mine)


async def test_a_page_that_the_browser_has_is_not_sent_again(browser: httpx.AsyncClient) -> None:
    first = await browser.get("/")
    etag = first.headers["etag"]
    again = await browser.get("/", headers={"if-none-match": f'"other", W/{etag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == etag
    assert "content-security-policy" in again.headers
    assert (await browser.get("/", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=x", False),
        ("", False),
    ],
)
async def test_compression_follows_what_is_accepted(browser: httpx.AsyncClient, accepted: str, packed: bool) -> None:
    answer = await browser.get("/static/js/client.js", headers={"accept-encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.text == (WEB / "js/client.js").read_text()
    assert ("-gz" in answer.headers["etag"]) is packed, "two encodings are two representations"


async def test_head_answers_like_get_without_a_body(browser: httpx.AsyncClient) -> None:
    get = await browser.get("/static/css/tokens.css")
    head = await browser.head("/static/css/tokens.css")
    assert head.content == b""
    assert dict(head.headers) == dict(get.headers)


async def test_the_address_people_write_down_is_open_to_other_sites(browser: httpx.AsyncClient) -> None:
    element = await browser.get("/static/js/live-leaderboard.js")
    assert element.headers["cache-control"] == "no-cache"
    assert element.headers["access-control-allow-origin"] == "*"
    assert element.headers["cross-origin-resource-policy"] == "cross-origin"
    assert element.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_another_version_gets_the_file_but_must_not_keep_it(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/static/v-0123456789ab/js/client.js")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"


def test_one_changed_byte_changes_every_kept_address(tmp_path: Path) -> None:
    for folder in ("css", "js"):
        (tmp_path / folder).mkdir()
    (tmp_path / "js/a.js").write_text("1")
    before = pages.Assets(tmp_path).version
    assert pages.Assets(tmp_path).version == before
    (tmp_path / "js/a.js").write_text("2")
    assert pages.Assets(tmp_path).version != before


@pytest.mark.parametrize(
    "path",
    [
        "/static/../index.html",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static/..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/js/",
        "/static/js",
        "/static/",
        "/static/index.html",
        "/static/js/package.json",
        "/static/v-x/../../js/client.js",
        "/static/js/client.js%00",
        "/static/js/..%5cclient.js",
        "/docs/../index.html",
        "/docs/%2e%2e/index.html",
        "/docs/nothing",
    ],
)
async def test_no_path_leads_out_of_the_files(browser: httpx.AsyncClient, path: str) -> None:
    request = browser.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = await browser.send(request)
    assert answer.status_code == 404
    assert "<html" not in answer.text


async def test_docs_lead_to_their_folder_wherever_a_proxy_put_it(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/docs")
    assert answer.status_code == 308
    assert answer.headers["location"] == "docs/"


async def test_documentation_pages_are_served_with_their_pictures(tmp_path: Path) -> None:
    for folder in ("css", "js", "docs/pictures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("index.html", "overlay.html", "setup.html", "play.html"):
        (tmp_path / name).write_text("<p>page</p>")
    (tmp_path / "css/tokens.css").write_text("p{}")
    (tmp_path / "docs/index.html").write_text('<link rel="stylesheet" href="../static/css/tokens.css">')
    (tmp_path / "docs/guide.html").write_text("<h1>Guide</h1>")
    (tmp_path / "docs/pictures/board.png").write_bytes(b"\x89PNG")
    transport = httpx.ASGITransport(app=Starlette(routes=pages.routes(tmp_path)))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        index = await client.get("/docs/")
        style = await client.get(str(index.url.join(assets_of(index.text)[0])))
        assert style.headers["cache-control"] == KEPT
        assert (await client.get("/docs/guide")).text == "<h1>Guide</h1>"
        picture = await client.get("/docs/pictures/board.png")
        assert (picture.headers["content-type"], picture.content) == ("image/png", b"\x89PNG")


async def test_a_missing_page_is_noticed_at_the_start(tmp_path: Path) -> None:
    for folder in ("css", "js"):
        (tmp_path / folder).mkdir()
    with pytest.raises(FileNotFoundError):
        pages.routes(tmp_path)


async def test_everything_for_the_first_board_is_small(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/")
    addresses = {str(page.url.join(relative)) for relative in assets_of(page.text)}
    bodies = [page.content] + [(await browser.get(address)).content for address in addresses]
    assert sum(len(gzip.compress(body)) for body in bodies) < 48 * 1024
