"""The browser's files: pages and assets, read once, compressed once, served from memory.

Owns which address shows which page, how long a browser may keep what, and what a page may do (its policy).
Must never read a file after the start, follow a path from a request into the file system, or put code into
a page. Assumes that pages name their assets relatively below ``static/``, so that any path prefix in front
of the server works, and that a folder of assets changes only with a new start.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

NOTHING: Mapping[bytes, bytes] = {}
CONTENT_TYPES = {
    ".cfg": "text/plain; charset=utf-8",
    ".conf": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".toml": "text/plain; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".yml": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
}
COMPRESSED = {".css", ".html", ".js", ".json", ".svg", ".ts", ".txt"}
FOREVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; frame-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
    "require-trusted-types-for 'script'; frame-ancestors "
)
# What an overlay may beside that: streaming programs put their user's style sheet into it, as an element or a link, by
# `innerHTML` too; and it is framed by pages of any kind, those of a streamer's own disk and isolated ones included.
# Without credentials, what that style sheet fetches elsewhere need not allow isolated pages to have it.
OVERLAY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline' https: data:; "
    "img-src 'self' https: data:; connect-src 'self'; font-src 'self' https: data:; form-action 'none'; base-uri 'none'"
)
OVERLAY = {
    "content-security-policy": OVERLAY_POLICY,
    "cross-origin-embedder-policy": "credentialless",
    "cross-origin-resource-policy": "cross-origin",
}


def _framed_by(ancestors: str) -> dict[str, str]:
    return {"content-security-policy": POLICY + ancestors}


# Page address -> (file below web/, what it may). A frame around a sign-in could steal its clicks.
PAGES = {
    "/": ("index.html", _framed_by("'self'")),
    "/overlay": ("overlay.html", OVERLAY),
    "/overlay/setup": ("setup.html", _framed_by("'none'")),
    "/play": ("play.html", _framed_by("'none'")),
}
ASSET_FOLDERS = ("css", "js")
ENTITY_TAG = re.compile(r'(W/)?("[^"]*")')
ASSET_LINK = re.compile(rb'(?P<before>(?:href|src)="(?:\.\./)*static/)(?!v-)')


@dataclass(frozen=True)
class Body:
    """One file as it goes out: ``packed`` is its gzip form, None where that is not smaller."""

    content_type: str
    plain: bytes
    packed: bytes | None
    etag: str

    @classmethod
    def of(cls, suffix: str, plain: bytes) -> Body:
        packed = gzip.compress(plain, 9, mtime=0) if suffix in COMPRESSED else plain
        etag = hashlib.sha256(plain).hexdigest()[:20]
        return cls(CONTENT_TYPES[suffix], plain, packed if len(packed) < len(plain) else None, etag)

    def negotiated(self, request: Headers) -> tuple[bytes, dict[str, str]]:
        """The bytes for this request and the headers that name them. RFC 9110: 8.8.3, 12.5.3."""
        headers = {"content-type": self.content_type, "etag": f'"{self.etag}"'}
        if self.packed is None:
            return self.plain, headers
        headers["vary"] = "Accept-Encoding"
        if not _accepts_gzip(_listed(request, "accept-encoding")):
            return self.plain, headers
        return self.packed, headers | {"etag": f'"{self.etag}-gz"', "content-encoding": "gzip"}


class Served:
    """An ASGI application that answers GET and HEAD with one body, or with 304 where the browser has it."""

    def __init__(self, body: Body, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"} | headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Headers(scope=scope)
        content, named = self.body.negotiated(request)
        if "if-match" in request and not _names(_listed(request, "if-match"), named["etag"], weak=False):
            raise HTTPException(412, "This is not what you have any more.", {"etag": named["etag"]})
        status = 304 if _names(_listed(request, "if-none-match"), named["etag"], weak=True) else 200
        headers = self.headers | named
        if status == 200:
            headers["content-length"] = str(len(content))
        else:
            headers.pop("content-type")
            headers.pop("content-encoding", None)
        silent = status == 304 or scope["method"] == "HEAD"
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if silent else content})


class Assets:
    """The files below ``static/``, with and without the version in front of their path.

    ``static/v-<version>/js/x.js`` may be kept for ever where the version is this server's; a page of another
    version (a rolling restart) gets this server's file but must not keep it. ``static/js/x.js`` is the
    address that people write into their pages.
    """

    def __init__(self, web: Path) -> None:
        files = {path.relative_to(web).as_posix(): path for path in _asset_paths(web)}
        digests = b"".join(_digest(name, path) for name, path in files.items())
        self.version = hashlib.sha256(digests).hexdigest()[:12]
        self._kept = {name: self._served(path, FOREVER) for name, path in files.items()}
        self._asked = {name: self._served(path, ASK_FIRST) for name, path in files.items()}

    @staticmethod
    def _served(path: Path, cache_control: str) -> Served:
        open_to_all = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
        return Served(Body.of(path.suffix, path.read_bytes()), {"cache-control": cache_control} | open_to_all)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path_params"]["path"]
        version, _, rest = path.partition("/")
        if version.startswith("v-"):
            known = self._kept if version == f"v-{self.version}" else self._asked
            answer: ASGIApp | None = known.get(rest)
        else:
            answer = self._asked.get(path)
        await (answer or not_found)(scope, receive, send)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to an address below ``static/`` or ``docs/`` that names no file: the application's own."""
    raise HTTPException(404)


class Docs:
    """The pages below ``docs/``, by their names with or without ``.html``."""

    def __init__(self, web: Path, version: str) -> None:
        folder = web / "docs"
        self._files = {
            path.relative_to(folder).as_posix(): _page(path, version, _framed_by("'self'"))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in CONTENT_TYPES
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path_params"].get("path", "")
        name = path + "index.html" if path.endswith("/") or not path else path
        await (self._files.get(name) or self._files.get(f"{name}.html") or not_found)(scope, receive, send)


class Redirect:
    """Leads to ``location``, relative to wherever a proxy has put us."""

    def __init__(self, location: str) -> None:
        self._headers = [(b"location", location.encode("latin-1")), (b"content-length", b"0")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 308, "headers": self._headers})
        await send({"type": "http.response.body", "body": b""})


def routes(web: Path, *, registration: str = "open") -> list[BaseRoute]:
    """Routes for the pages and assets below ``web``, ready to stand in an application's route list. The page to play
    says whether anybody may register.

    Reads and compresses every file now. Raises FileNotFoundError where a page of PAGES is missing; the
    documentation may be missing.
    """
    assets = Assets(web)
    said = {b'data-registration="open"': f'data-registration="{registration}"'.encode()}
    pages = [_route(address, _page(web / name, assets.version, may, said)) for address, (name, may) in PAGES.items()]
    docs = Docs(web, assets.version)
    return [
        *pages,
        _route("/docs", Redirect("docs/")),
        _route("/docs/{path:path}", docs),
        _route("/static/{path:path}", assets),
    ]


def _route(address: str, app: ASGIApp) -> Route:
    return Route(address, app, methods=["GET", "HEAD"], include_in_schema=False)


def _page(path: Path, version: str, may: dict[str, str], said: Mapping[bytes, bytes] = NOTHING) -> Served:
    plain = path.read_bytes()
    for before, now in said.items():
        plain = plain.replace(before, now)
    if path.suffix == ".html":
        plain = ASSET_LINK.sub(rb"\g<before>v-" + version.encode() + b"/", plain)
    return Served(Body.of(path.suffix, plain), {"cache-control": ASK_FIRST} | may)


def _asset_paths(web: Path) -> Iterator[Path]:
    for path in sorted([*web.iterdir(), *(path for name in ASSET_FOLDERS for path in (web / name).rglob("*"))]):
        if path.is_file() and path.suffix in CONTENT_TYPES and path.suffix not in {".html", ".json"}:
            yield path


def _digest(name: str, path: Path) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + path.read_bytes()).digest()


def _accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    quality: dict[str, float] = {}
    for item in accepted.lower().split(","):
        coding, _, parameter = item.partition(";")
        try:
            quality[coding.strip()] = float(parameter.partition("q=")[2] or 1)
        except ValueError:
            quality[coding.strip()] = 0.0
    return quality.get("gzip", quality.get("*", 0.0)) > 0


def _listed(request: Headers, name: str) -> str:
    """All lines of a header field as one (RFC 9110, section 5.3)."""
    return ",".join(request.getlist(name))


def _names(condition: str, etag: str, *, weak: bool) -> bool:
    """Whether If-None-Match (`weak`) or If-Match names the body with this tag (RFC 9110, sections 8.8.3 and 13.1)."""
    if condition.strip() == "*":
        return True
    return any(tag == etag and (weak or not mark) for mark, tag in ENTITY_TAG.findall(condition))
