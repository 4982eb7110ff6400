"""Addresses of the stores, and secrets: read strictly, shown without what nobody may see.

Owns the grammar of both addresses (RFC 3986, and the options that the libraries behind them know) and how a secret
looks in any output. Must never put anything that was given into an error: of a malformed address any part may be the
password. Assumes that asyncpg and redis-py read what `reveal` gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote


class Secret:
    """A text that no print, log or traceback shows. False where it is empty."""

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str = "", shown: str = "***") -> None:
        self._text = text
        self._shown = shown if text else ""

    def reveal(self) -> str:
        """The text itself: for whoever must know it, as late as possible."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"<{self._shown}>"


_ANY: Final = re.compile(r".+", re.DOTALL)
_NUMBER: Final = re.compile(r"\d{1,5}")
_PORTS: Final = re.compile(r"\d{1,5}(,\d{1,5})*")
_TLS: Final = re.compile(r"TLSv1(\.[123])?")

Options = Mapping[str, re.Pattern[str]]
"""What may stand behind the question mark: names, and what their values look like."""

_LEDGER_OPTIONS: Final[Options] = {
    "application_name": _ANY,
    "database": _ANY,
    "dbname": _ANY,
    "gsslib": re.compile(r"gssapi|sspi"),
    "host": _ANY,
    "krbsrvname": _ANY,
    "options": _ANY,
    "passfile": _ANY,
    "password": _ANY,
    "port": _PORTS,
    "search_path": _ANY,
    "ssl_max_protocol_version": _TLS,
    "ssl_min_protocol_version": _TLS,
    "sslcert": _ANY,
    "sslcrl": _ANY,
    "sslkey": _ANY,
    "sslmode": re.compile(r"disable|allow|prefer|require|verify-ca|verify-full"),
    "sslnegotiation": re.compile(r"postgres|direct"),
    "sslpassword": _ANY,
    "sslrootcert": _ANY,
    "target_session_attrs": re.compile(r"any|primary|read-write|prefer-standby"),  # the others take no writes
    "user": _ANY,
}

_SOCKET_OPTIONS: Final[Options] = {"db": _NUMBER, "password": _ANY, "username": _ANY}
_CLUSTER_OPTIONS: Final[Options] = {"password": _ANY, "username": _ANY}
_SENTINEL_OPTIONS: Final[Options] = {**_SOCKET_OPTIONS, "sentinel_password": _ANY, "sentinel_username": _ANY}
_TLS_OPTIONS: Final[Options] = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_cert_reqs": re.compile(r"none|optional|required"),
    "ssl_certfile": _ANY,
    "ssl_check_hostname": re.compile(r"(?i:true|false|yes|no|1|0)"),
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
}

_HIDDEN: Final = frozenset({"password", "sentinel_password", "sslpassword", "ssl_password", "options"})
"""Options whose values are not shown."""

_UNREQUESTED: Final = frozenset({"disable", "allow", "prefer"})
"""Values of sslmode under which TLS is not demanded."""

_ADDRESS: Final = re.compile(
    r"(?P<scheme>[a-z]+(?:\+[a-z]+)?)://(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?(?P<place>[^@/?#]*)"
    r"(?:/(?P<path>[^@?#]*))?(?:\?(?P<query>[^@#;]*))?",
    re.ASCII | re.IGNORECASE,
)
_PLACE: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:,]*))(?::(\d{1,5}))?", re.ASCII | re.IGNORECASE)
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)  # as Sentinel takes it
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_OPTION: Final = re.compile(r"[a-z_]{1,40}", re.ASCII | re.IGNORECASE)

_ENCODE: Final = (
    "in a user or password write / as %2F, ? as %3F, # as %23, @ as %40, % as %25, a space as %20, "
    "and so on with all that is neither letter nor digit"
)


class _Parts(NamedTuple):
    """An address taken apart. Each part as it was given, but decoded in `options`."""

    scheme: str
    user: str | None
    password: str | None
    place: str
    path: str | None
    options: dict[str, str]

    def joined(self, *, hidden: bool) -> str:
        """The address again, with everything encoded that needs it."""
        user, password = (part and quote(unquote(part), safe="") for part in (self.user, self.password))
        if hidden and password:
            password = "***"  # noqa: S105 - what stands for one
        who = "" if user is None else f"{user}@" if password is None else f"{user}:{password}@"
        path = "" if self.path is None else f"/{self.path}"
        options = "&".join(
            f"{name}={'***' if hidden and name in _HIDDEN else quote(value, safe='/,-')}"
            for name, value in self.options.items()
        )
        return f"{self.scheme}://{who}{self.place}{path}{options and f'?{options}'}"


def ledger_address(text: str) -> Secret:
    """DATABASE_URL. Raises ValueError with what is wrong and what to do, and with nothing of the text."""
    if not text:
        return Secret()
    form = "postgresql://user:password@host:5432/database"
    parts = _taken_apart(text, ("postgresql", "postgres"), form, lambda scheme: _LEDGER_OPTIONS)
    for places in (parts.place, parts.options.get("host", "")):
        for place in places.split(",") if places else ():
            _check_place(place, form, sockets=True)
    if "/" in (parts.path or ""):
        raise ValueError(f"must have the form {form}; {_ENCODE}")
    whole = parts._replace(options=dict(_completed(parts.options)))
    return Secret(whole.joined(hidden=False), parts.joined(hidden=True))


def each_host(address: str) -> list[tuple[str, str]]:
    """The hosts of a DATABASE_URL that `ledger_address` took, in order: the name of each for people, and its address
    alone. One without a host is one host: whichever the library looks for."""
    parts = _taken_apart(address, ("postgresql", "postgres"), "", lambda scheme: _LEDGER_OPTIONS)
    if parts.place:
        return [(unquote(one), parts._replace(place=one).joined(hidden=False)) for one in parts.place.split(",")]
    if "host" not in parts.options:
        return [("localhost", address)]
    hosts = parts.options["host"].split(",")
    ports = parts.options["port"].split(",") if "port" in parts.options else []
    ports = ports * len(hosts) if len(ports) == 1 else ports
    found: list[tuple[str, str]] = []
    for place, host in enumerate(hosts):
        own = {"host": host} | ({"port": ports[place]} if ports else {})
        name = f"{host}:{own['port']}" if ports else host
        found.append((name, parts._replace(options={**parts.options, **own}).joined(hidden=False)))
    return found


def store_address(text: str) -> Secret:
    """DRAGONFLY_URL. Raises ValueError as `ledger_address` does, with every mistake."""
    if not text:
        return Secret()
    form = _STORE_FORMS.get(text.partition("://")[0].lower(), _STORE_FORMS["redis"])
    mistakes: list[str] = []
    parts = _taken_apart(text, tuple(_STORE_FORMS), form, _store_options, mistakes)
    if parts.scheme == "unix":
        if parts.place or not parts.path:
            mistakes.append(f"must name the socket's file with three strokes, as {form}")
    else:
        mistakes += _mistakes_of_nodes(parts, form)
    if parts.user and not parts.password:
        mistakes.append(f"has a user without a password; a password alone stands behind a colon, as {form}")
    if parts.options.get("sentinel_username") and not parts.options.get("sentinel_password"):
        mistakes.append("has the option sentinel_username without sentinel_password")
    if mistakes:
        raise ValueError(_all_of(mistakes))
    return Secret(parts.joined(hidden=False), parts.joined(hidden=True))


_STORE_FORMS: Final = {
    "redis": "redis://:password@host:6379/0",
    "rediss": "rediss://:password@host:6379/0",
    "unix": "unix:///run/redis.sock?db=0",
    "redis+sentinel": "redis+sentinel://:password@host1:26379,host2:26379/NAME/0",
    "rediss+sentinel": "rediss+sentinel://:password@host1:26379,host2:26379/NAME/0",
    "redis+cluster": "redis+cluster://:password@host1:7000,host2:7000",
    "rediss+cluster": "rediss+cluster://:password@host1:7000,host2:7000",
}
"""How the address of a store looks, by its scheme."""


def _mistakes_of_nodes(parts: _Parts, form: str) -> Iterator[str]:
    """What is wrong with the nodes of a store, and with what stands behind them."""
    seen: dict[str, None] = {}
    for place in parts.place.split(","):
        try:
            _check_place(place, form, sockets=False)
        except ValueError as error:
            seen[str(error)] = None
    yield from seen
    path = parts.path or ""
    if parts.scheme.endswith("+cluster"):
        if path not in ("", "0"):
            yield f"must not name a database: a cluster has 0 alone, as {form}"
        return
    if parts.scheme.endswith("+sentinel"):
        name, _, path = path.partition("/")
        if not _SERVICE.fullmatch(unquote(name)):
            yield f"must name the primary as its Sentinels do, as {form}"
    if path and not _NUMBER.fullmatch(path):
        yield f"must end with a database's number, as {form}"


def _store_options(scheme: str) -> Options:
    kind, _, form = scheme.partition("+")
    own = {"cluster": _CLUSTER_OPTIONS, "sentinel": _SENTINEL_OPTIONS}.get(form, _SOCKET_OPTIONS)
    return {**own, **_TLS_OPTIONS} if kind == "rediss" else own


def _all_of(mistakes: Iterable[str]) -> str:
    """Mistakes in one sentence, each once."""
    return "; it also ".join(dict.fromkeys(mistakes))


def _completed(options: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Options with what they imply: asyncpg looks in the shell's PGSSLNEGOTIATION and PGGSSLIB for what is not said."""
    yield from options.items()
    if options.get("sslmode") in _UNREQUESTED and "sslnegotiation" not in options:
        yield "sslnegotiation", "postgres"
    if "gsslib" not in options:
        yield "gsslib", "gssapi"


def _taken_apart(
    text: str,
    schemes: tuple[str, ...],
    form: str,
    known: Callable[[str], Options],
    mistakes: list[str] | None = None,
) -> _Parts:
    """The parts of an address. Raises ValueError where it has none; what is wrong in one of them too, except where
    there are `mistakes` to be added to."""
    if not text.isprintable() or " " in text:  # also bytes that were no UTF-8
        raise ValueError(f"has a space, or a character that cannot be printed; {_ENCODE}")
    if text.partition("://")[0].lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}, as {form}")
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"must have the form {form}; {_ENCODE}")
    if not _is_encoded(text):
        raise ValueError("has a % that is not followed by the two digits of a character in UTF-8; write % as %25")
    scheme = found["scheme"].lower()
    options, wrong = _options(found["query"], known(scheme))
    for user in (found["user"], *(options.get(name) for name in ("user", "username", "sentinel_username"))):
        if ":" in unquote(user or ""):  # else all of it would be a name, which is shown and logged
            wrong.append("has a user with a colon, as %3A; write the colon before the password as it is")
    if mistakes is not None:
        mistakes += wrong
    elif wrong:
        raise ValueError(_all_of(wrong))
    return _Parts(scheme, found["user"], found["password"], found["place"], found["path"], options)


def _is_encoded(text: str) -> bool:
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        return False
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _options(query: str | None, known: Options) -> tuple[dict[str, str], list[str]]:
    """The options, and what is wrong with some."""
    options: dict[str, str] = {}
    mistakes: list[str] = []
    pairs = query.split("&") if query else []
    names = [unquote(pair.partition("=")[0]) for pair in pairs]
    may_name = not any("pass" in name.lower() for name in names)  # else a name may be a piece of a password
    may_name = may_name and not any(":" in unquote(pair) for pair in pairs if not pair.startswith("host"))
    for name, pair in zip(names, pairs, strict=True):
        value = unquote(pair.partition("=")[2])
        is_harmless = name in known or (may_name and not mistakes and _OPTION.fullmatch(name))
        called = f"the option {name}" if is_harmless else "an option"
        if name not in known:
            mistakes.append(f"has {called} that is not supported; supported are {', '.join(known)}")
            continue
        if name in options:
            mistakes.append(f"has {called} twice")
        if not known[name].fullmatch(value):
            pattern = known[name].pattern
            allowed = "a value" if known[name] is _ANY else " or ".join(pattern.split("|")) if pattern.islower() else ""
            mistakes.append(f"has {called} with a value that it cannot have{allowed and f'; it needs {allowed}'}")
        options[name] = value
    return options, mistakes


def _check_place(place: str, form: str, *, sockets: bool) -> None:
    """Raises ValueError where a host and port cannot be one."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError(f"must name host and port as {form}, and an IPv6 address in brackets")
    bracketed, name, port = found.groups()
    if port is not None and not 0 < int(port) < 65_536:
        raise ValueError("must have a port from 1 to 65535")
    if bracketed is not None:
        is_fit = is_ipv6(bracketed)
    else:
        is_fit = is_host(name) or (sockets and (not name or unquote(name).startswith("/")))
    if not is_fit:
        raise ValueError(f"must name a host, in letters, digits, dots and hyphens (others as xn--...), as {form}")


def is_host(name: str) -> bool:
    """Whether this can be a host's name, or an IPv4 address."""
    return len(name) < 254 and all(map(_LABEL.fullmatch, name.removesuffix(".").split(".")))


def is_ipv6(text: str) -> bool:
    """Whether this is an IPv6 address, without its brackets."""
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
