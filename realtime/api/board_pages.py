"""Pages of boards over HTTP: their bytes, how one is told from the next, and for how long a cache may keep one.

Owns the tag of a page and what caches are told. Must never give two pages one tag, nor let a cache keep what not
everybody may see. Assumes that a board's version tells everything about its top, and nothing of what is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson
from starlette.responses import Response

from realtime.boards.board import CLOSED_EPOCH, TOP
from realtime.broadcast.pages import Page
from realtime.wire import positions

LIVE: Final = "public, max-age=0, s-maxage=1"
"""A browser asks each time, and is told shortly where nothing changed; a cache in between may keep it for a second."""

CLOSED: Final = "public, max-age=60, s-maxage=3600, stale-while-revalidate=86400"
"""A closed board changes only by amendment, which moves its tag."""

UNKEPT: Final = "no-store"
PRIVATE: Final = "private, no-store"


@dataclass(frozen=True, slots=True)
class BoardPage:
    """A page, ready to be sent to any number of clients."""

    body: bytes
    tag: str | None
    """Of what it shows; None of what is stale, for nobody knows whether that is still so."""
    kept: str
    """What caches are told."""

    def response(self, known: str | None) -> Response:
        """The answer to somebody who has pages with the tags `known` (If-None-Match; RFC 9110, section 13.1.2)."""
        headers = {"cache-control": self.kept}
        if self.tag is not None:
            headers["etag"] = self.tag
            if known is not None and _has(known, self.tag):
                return Response(status_code=304, headers=headers)
        return Response(self.body, media_type="application/json", headers=headers)


def made(page: Page, *, offset: int, limit: int, by_alias: bool, is_public: bool) -> BoardPage:
    """The page of a board asked for by id or `by_alias`, which stands for another board later; `is_public` where
    everybody may see it."""
    body = orjson.dumps(page)
    is_closed = page.epoch == CLOSED_EPOCH
    kept = CLOSED if is_closed and not by_alias else LIVE
    if page.stale:
        kept = UNKEPT
    if not is_public:
        kept = PRIVATE
    if page.stale or not page.epoch:
        return BoardPage(body, None, kept)
    tag = positions.written(page.board, page.epoch, page.version).decode()
    if page.players > TOP and not (is_closed and offset + limit <= TOP):
        # Who is below the top, and how many, the version does not tell.
        tag = f"{tag}.{blake2b(body, digest_size=6).hexdigest()}"
    return BoardPage(body, f'"{tag}"', kept)


def unchanged() -> Response:
    """The answer to somebody who waited for a board that did not move."""
    return Response(status_code=304, headers={"cache-control": UNKEPT})


def _has(known: str, tag: str) -> bool:
    tags = [one.strip().removeprefix("W/") for one in known.split(",")]
    return tag in tags or "*" in tags
