"""Origins: what browsers and the web views of apps send as Origin, from what people write.

Owns the one form in which an origin is compared (RFC 6454, section 6.2: lower case, no default port, no path, names in
punycode). Must never take what no browser sends, for it would match nothing and nobody would know why; nor put what was
given into an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import idna

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>\d{1,5}))?/?", re.ASCII
)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FILES: Final = "file://"
"""What the web views of some apps send for a page that came with the app."""

_LAST_IS_NUMBER: Final = re.compile(r"(\d+|0x[0-9a-f]*)\.?")


def normalised(text: str) -> str:
    """Origins with commas in between, each as it is sent, none twice. Raises ValueError."""
    found: dict[str, None] = {}
    for place, part in enumerate((part for part in text.split(",") if part.strip()), 1):
        try:
            found[_origin(part.strip().lower())] = None
        except ValueError as error:
            raise ValueError(f"origin {place} {error}") from None
    return ",".join(found)


def _origin(text: str) -> str:
    if "*" in text:
        raise ValueError("has a wildcard: name each origin (public boards are open to every page without this)")
    if text == "null":
        raise ValueError("is null, which every sandboxed page and local file sends: serve the page from a host")
    if text in (_FILES, f"{_FILES}/"):
        return _FILES
    parts = _ORIGIN.fullmatch(text)
    if parts is None:
        raise ValueError("is none: write scheme, host and, where it is not the scheme's own, port: https://example.com")
    scheme, host, port = parts["scheme"], parts["host"], int(parts["port"]) if parts["port"] else None
    if scheme in ("ws", "wss", "file", "blob"):
        raise ValueError("has a scheme that no browser sends in Origin: write the page's, as https://example.com")
    if port is not None and not 0 < port < 65_536:
        raise ValueError("must have a port from 1 to 65535")
    shown = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{_host(host, is_web=scheme in _DEFAULT_PORTS)}{shown}"


def _host(host: str, *, is_web: bool) -> str:
    """A host as browsers write it. That of an app's own scheme is whatever the app chose."""
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1])}]"
        if not is_web:
            host.encode("ascii")
            return host
        if _LAST_IS_NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
            return str(IPv4Address(host.removesuffix(".")))
        return idna.encode(host, uts46=True).decode() if not host.isascii() else _checked(host)
    except ValueError:  # idna's errors and those of encodings and addresses are such
        raise ValueError("has a host that no page can be at: write its name, as https://example.com") from None


def _checked(host: str) -> str:
    if not all(map(_LABEL.fullmatch, host.removesuffix(".").split("."))):
        raise ValueError("no host")
    return host


_PORTS: Final = {"http": ":80", "https": ":443"}


class Origins:
    """Which pages may speak for somebody: this server's own, and those that the operator names."""

    def __init__(self, allowed: str = "") -> None:
        self._allowed = frozenset(origin for origin in allowed.split(",") if origin)

    @property
    def are_named(self) -> bool:
        """Whether the operator named any."""
        return bool(self._allowed)

    def names(self, origin: str) -> bool:
        """Whether the operator named `origin`."""
        return origin.lower() in self._allowed

    def trusts(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers comes from such a page, or from no browser at all (no Origin)."""
        origin = headers.get("origin")
        if origin is None or headers.get("sec-fetch-site") == "same-origin":  # no page can set that one
            return True
        if self.names(origin):
            return True
        # As most servers compare: a proxy that ends TLS changes the scheme, and leaves Host as it was.
        scheme, _, place = origin.lower().partition("://")
        port = _PORTS.get(scheme, "")
        return bool(place) and place.removesuffix(port) == headers.get("host", "").lower().removesuffix(port)
