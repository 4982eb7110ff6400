"""Settings: every number and address an operator may choose.

Owns names, defaults, bounds and their meaning. Must never read the environment: a mapping is given. All errors are
told at once, each with the name to change, and never with the value of a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from realtime.errors import StartupError

SECRETS: Final = frozenset({"DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET"})
PREFIX: Final = "REALTIME_"
ALIKE: Final = 0.85
"""From which likeness on, of 1, an unknown name is a misspelt one: a letter or two."""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _env(name: str, default: Any, description: str, *others: str) -> Any:
    return Field(default, validation_alias=AliasChoices(name, *others), description=description)


def _origins(text: str) -> str:
    """Origins as browsers write them (RFC 6454, section 6.2), with commas in between."""
    origins = [part.strip().rstrip("/").lower() for part in text.split(",") if part.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{origin!r} is no origin; write https://example.com")
    return ",".join(origins)


def _url_of(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and urlsplit(text).scheme not in schemes:
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return AfterValidator(check)


def _networks(text: str) -> str:
    """Addresses and networks, with commas in between."""
    networks = [part.strip() for part in text.split(",") if part.strip()]
    for network in networks:
        ip_network(network, strict=False)
    return ",".join(networks)


class Settings(BaseModel):
    """What one process runs with. Field descriptions are the documentation."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    database_url: Annotated[str, _url_of("postgresql", "postgres")] = _env(
        "DATABASE_URL", "", "PostgreSQL, as postgresql://user:password@host/database"
    )
    dragonfly_url: Annotated[str, _url_of("redis", "rediss", "unix")] = _env(
        "DRAGONFLY_URL", "", "Dragonfly or Redis, as redis://:password@host:6379/0 (rediss:// for TLS)"
    )
    secret: str = _env(
        "REALTIME_SECRET",
        "",
        "signs tokens (HS256): 32 random bytes or more, the same everywhere; several with commas in between all count, "
        "the first signs",
    )
    jwks_file: str = _env("REALTIME_JWKS_FILE", "", "public keys (RS256, ES256, EdDSA) that tokens may be signed for")
    token_audience: str = _env("REALTIME_TOKEN_AUDIENCE", "", "aud that every token must name; empty: none may")
    token_issuer: str = _env("REALTIME_TOKEN_ISSUER", "", "iss that every token must name; empty: any")

    host: str = _env("REALTIME_HOST", "127.0.0.1", "address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = _env(
        "REALTIME_PORT", 8000, "port to listen on; 0 picks a free one", "PORT"
    )
    root_path: str = _env("REALTIME_ROOT_PATH", "", "path prefix that a proxy in front takes away")
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = _env(
        "REALTIME_TRUSTED_PROXIES", "", "addresses or networks, with commas, whose X-Forwarded-* headers are believed"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _env(
        "REALTIME_LOG_LEVEL", "info", "least severe line that is logged"
    )

    processes: Annotated[int, Field(ge=1, le=256)] = _env(
        "REALTIME_PROCESSES", 1, "serving processes of `realtime serve`: one a core"
    )
    drain_s: Annotated[float, Field(ge=0, le=600)] = _env(
        "REALTIME_DRAIN_S", 2.0, "seconds from SIGTERM, while /readyz says no, until clients are asked to leave"
    )
    reconnect_spread_s: Annotated[float, Field(ge=0, le=600)] = _env(
        "REALTIME_RECONNECT_SPREAD_S", 15.0, "most seconds over which clients are asked to leave, one by one"
    )
    cut_off_s: Annotated[float, Field(ge=0)] = _env(
        "REALTIME_CUT_OFF_S",
        0.0,
        "seconds without the store until clients are asked to come back; for a balancer that reads /readyz; 0: never",
    )
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = _env(
        "REALTIME_WORKER_METRICS_PORT", 0, "port on which `realtime worker` shows its metrics; 0: none"
    )

    database_connections: Annotated[int, Field(ge=2)] = _env(  # those of intake are its alone
        "REALTIME_DATABASE_CONNECTIONS",
        8,
        "PostgreSQL connections a process, besides one for its pulse; one a lane and one more only record; at least 2",
    )
    store_connections: Annotated[int, Field(ge=2)] = _env(  # one only listens
        "REALTIME_STORE_CONNECTIONS", 8, "store connections a process, besides two spare; at least 2"
    )
    store_timeout_s: Seconds = _env("REALTIME_STORE_TIMEOUT_S", 2.0, "seconds until the store counts as away")

    queue_limit: Count = _env("REALTIME_QUEUE_LIMIT", 20_000, "submissions that may wait; beyond: overloaded")
    batch_limit: Annotated[int, Field(ge=1, le=1000)] = _env("REALTIME_BATCH_LIMIT", 1_000, "submissions a statement")
    batch_lanes: Count = _env("REALTIME_BATCH_LANES", 3, "statements at once a process")

    broadcast_interval_ms: Annotated[int, Field(ge=1, le=60_000)] = _env(
        "REALTIME_BROADCAST_INTERVAL_MS", 50, "least milliseconds between two diffs of a board"
    )
    subscriber_buffer_bytes: Annotated[int, Field(ge=8_192)] = _env(
        "REALTIME_SUBSCRIBER_BUFFER_BYTES", 32_768, "unsent bytes from which a subscriber is behind"
    )
    slow_after_s: Seconds = _env("REALTIME_SLOW_AFTER_S", 30.0, "seconds behind until a subscriber is closed (4408)")

    ping_interval_s: Seconds = _env(
        "REALTIME_PING_INTERVAL_S", 20.0, "seconds between pings; who does not answer for as long is gone"
    )

    max_message_bytes: Annotated[int, Field(ge=1_024)] = _env("REALTIME_MAX_MESSAGE_BYTES", 65_536, "largest message")
    max_body_bytes: Annotated[int, Field(ge=1_024)] = _env("REALTIME_MAX_BODY_BYTES", 2_097_152, "largest HTTP body")
    max_connections: Count = _env("REALTIME_MAX_CONNECTIONS", 50_000, "sockets a process; beyond: closed (4429)")
    max_connections_per_address: Annotated[int, Field(ge=0)] = _env(
        "REALTIME_MAX_CONNECTIONS_PER_ADDRESS", 1_000, "sockets of one client address; 0: any number"
    )
    message_rate: Annotated[float, Field(ge=0)] = _env(
        "REALTIME_MESSAGE_RATE",
        50.0,
        "messages a second of one socket without submit:any or admin, a long one counted for each 4 KiB; 0: any number",
    )
    max_subscriptions: Count = _env("REALTIME_MAX_SUBSCRIPTIONS", 64, "subscriptions a connection")
    max_watches: Count = _env("REALTIME_MAX_WATCHES", 16, "users whose rank a connection may watch")

    boards: Literal["public", "private"] = _env(
        "REALTIME_BOARDS", "public", "who may read: everybody, or tokens of scope read"
    )
    origins: Annotated[str, AfterValidator(_origins)] = _env(
        "REALTIME_ORIGINS", "", "whose pages may use tokens too, as https://example.com, with commas"
    )
    max_score: Annotated[int, Field(ge=1, le=2**31 - 1)] = _env(
        "REALTIME_MAX_SCORE", 2**31 - 1, "largest score, without its sign, of one submission, but for admins"
    )
    submission_rate: Annotated[int, Field(ge=0)] = _env(
        "REALTIME_SUBMISSION_RATE", 100, "submissions of one user a second without submit:any or admin; 0: any number"
    )
    registrations_per_address: Annotated[int, Field(ge=0)] = _env(
        "REALTIME_REGISTRATIONS_PER_ADDRESS", 20, "registrations from one address an hour; 0: any number"
    )
    logins_per_address: Annotated[int, Field(ge=0)] = _env(
        "REALTIME_LOGINS_PER_ADDRESS", 30, "logins from one address a minute; 0: any number"
    )
    logins_per_account: Annotated[int, Field(ge=0)] = _env(
        "REALTIME_LOGINS_PER_ACCOUNT", 10, "logins of one account a minute; 0: any number"
    )
    registration: Literal["open", "closed"] = _env("REALTIME_REGISTRATION", "closed", "who may POST /users")
    token_lifetime_s: Count = _env("REALTIME_TOKEN_LIFETIME_S", 86_400, "seconds a token of POST /sessions lives")

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from variables; an empty one counts as unset. Raises StartupError that names every mistake."""
        given = {name: value for name, value in environment.items() if value != ""}
        mistakes = [f"  {name}: there is no such setting; is {meant} meant?" for name, meant in _misspelt(given)]
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            mistakes += [f"  {_name_of(mistake['loc'])}: {mistake['msg']}" for mistake in error.errors()]
        if mistakes:
            raise StartupError("These settings are wrong:\n" + "\n".join(mistakes))
        return settings

    def require_stores(self) -> Settings:
        """These settings, where both stores and the secret are named. Raises StartupError naming what is missing."""
        needed = {
            "DATABASE_URL": self.database_url,
            "DRAGONFLY_URL": self.dragonfly_url,
            "REALTIME_SECRET": self.secret or self.jwks_file,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise StartupError(
                f"Set {', '.join(missing)}. (`realtime up` brings its own stores for development; "
                "other commands find them with --data-dir.)"
            )
        return self


def _misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, the setting it is close to) of variables that would be passed over silently.

    Others that begin alike are left alone: Kubernetes sets REALTIME_SERVICE_HOST for a service called realtime.
    """
    known = {name.removeprefix(PREFIX): name for name in variables()}
    for name in names:
        if name.startswith(PREFIX) and name not in known.values():
            for close in get_close_matches(name.removeprefix(PREFIX), known, 1, ALIKE):
                yield name, known[close]


def _name_of(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def variables() -> dict[str, tuple[Any, str]]:
    """Every variable with its default and meaning, in order: what the README's table and `realtime settings` show."""
    shown: dict[str, tuple[Any, str]] = {}
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        assert isinstance(alias, AliasChoices)
        shown[str(alias.choices[0])] = (field.default, field.description or "")
    return shown


class InForce(NamedTuple):
    """One variable as it counts: its value as text, secrets masked, and where that is from."""

    name: str
    value: str
    source: str


def in_force(settings: Settings, sources: Mapping[str, str]) -> list[InForce]:
    """Every variable of `settings` in order; `sources` says where those that are set come from."""
    shown: list[InForce] = []
    for attribute, field in Settings.model_fields.items():
        alias = field.validation_alias
        assert isinstance(alias, AliasChoices)
        names = [str(name) for name in alias.choices]
        source = next((sources[name] for name in names if name in sources), "default")
        value = getattr(settings, attribute)
        shown.append(InForce(names[0], masked(value) if names[0] in SECRETS else str(value), source))
    return shown


def masked(secret: str) -> str:
    """What may be shown of a secret: of a URL everything but the password, of anything else that it is there."""
    if not secret or "://" not in secret:
        return secret and "***"
    parts = urlsplit(secret)
    user, _, address = parts.netloc.rpartition("@")
    name, separator, _ = user.partition(":")
    shown = f"{name}{separator}{separator and '***'}@{address}" if user else address
    return urlunsplit(parts._replace(netloc=shown, query=_masked_query(parts.query)))


def _masked_query(query: str) -> str:
    return "&".join(
        f"{name}=***" if name in ("password", "sslpassword") else pair
        for pair in query.split("&")
        for name in [pair.partition("=")[0].lower()]
    )
