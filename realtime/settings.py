"""Settings: every number and address an operator may choose.

Owns names, defaults, bounds and their meaning, and which variables of an environment are meant for them. Must never
read the environment: a mapping is given. Assumes that a secret may stand under any name: all errors are told at once,
each with the name to change, and none with what was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from realtime.addresses import Secret, is_host, is_ipv6, ledger_address, store_address
from realtime.errors import StartupError
from realtime.origins import normalised

SECRETS: Final = frozenset({"DATABASE_URL", "REALTIME_READ_DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET"})
STORES: Final = ("DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET|REALTIME_JWKS_FILE")
"""What whoever opens both stores and checks tokens needs; of two in one, one."""

SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2."""

PREFIX: Final = "REALTIME_"
ALIKE: Final = 0.75
"""From which likeness on, of 1, an unknown name is a misspelt one: a letter or two, or two exchanged."""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _env(name: str, default: Any, description: str, *others: str) -> Any:
    return Field(default, validation_alias=AliasChoices(name, *others), description=description)


def _parsed(parse: Callable[[str], Secret]) -> BeforeValidator:
    return BeforeValidator(lambda given: given if isinstance(given, Secret) else parse(given))


def secret_parts(text: str) -> list[str]:
    """Secrets with commas in between, one by one. Raises ValueError where one is unfit, without saying which text."""
    if not text.isprintable():  # also bytes that were no UTF-8
        raise ValueError("has a character that cannot be printed; `openssl rand -hex 32` makes one without")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if any(len(part.encode()) < SECRET_BYTES for part in parts):
        raise ValueError(
            f"must have at least {SECRET_BYTES} bytes, each of several with commas in between; "
            "`openssl rand -hex 32` makes one"
        )
    return parts


def _secret(text: str) -> Secret:
    return Secret(",".join(secret_parts(text)))


def _host(text: str) -> str:
    if not (is_host(text) or is_ipv6(text.partition("%")[0])):
        raise ValueError("must be a host's name or an address alone, as 0.0.0.0 or ::")
    return text


def _prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/[^\s/?#]+)*", prefix):
        raise ValueError("must be a path, as /scores")
    return prefix


def _file(text: str) -> str:
    if not text.isprintable() or "{" in text:
        raise ValueError("must be the path of a file, not what is in it")
    return text


def _networks(text: str) -> str:
    """Addresses and networks, with commas in between."""
    networks = [part.strip() for part in text.split(",") if part.strip()]
    for place, network in enumerate(networks, 1):
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ValueError(f"network {place} is none; write 10.0.0.7 or 10.0.0.0/8, with commas in between") from None
    return ",".join(networks)


class Settings(BaseModel):
    """What one process runs with. Field descriptions are the documentation."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_default=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    database_url: Annotated[Secret, _parsed(ledger_address)] = _env(
        "DATABASE_URL",
        "",
        "PostgreSQL, as postgresql://user:password@host/database; a primary and its standbys with commas in between",
    )
    read_database_url: Annotated[Secret, _parsed(ledger_address)] = _env(
        "REALTIME_READ_DATABASE_URL",
        "",
        "standbys that logs and closed boards are read from, with commas between hosts; empty: the primary alone",
    )
    dragonfly_url: Annotated[Secret, _parsed(store_address)] = _env(
        "DRAGONFLY_URL",
        "",
        "Dragonfly or Redis, as redis://:password@host:6379/0 (rediss:// for TLS, unix:///file?db=0 for a socket); a "
        "primary and its replicas with commas in between, redis+sentinel://:password@host1:26379,host2:26379/NAME/0, "
        "or redis+cluster://:password@host1:7000,host2:7000",
    )
    secret: Annotated[Secret, _parsed(_secret)] = _env(
        "REALTIME_SECRET",
        "",
        "signs tokens (HS256): 32 random bytes or more, the same everywhere; several with commas in between all count, "
        "the first signs",
    )
    jwks_file: Annotated[str, AfterValidator(_file)] = _env(
        "REALTIME_JWKS_FILE", "", "public keys (RS256, ES256, EdDSA) that tokens may be signed for"
    )
    token_audience: str = _env("REALTIME_TOKEN_AUDIENCE", "", "aud that every token must name; empty: none may")
    token_issuer: str = _env("REALTIME_TOKEN_ISSUER", "", "iss that every token must name; empty: any")

    host: Annotated[str, AfterValidator(_host)] = _env("REALTIME_HOST", "127.0.0.1", "address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = _env(
        "REALTIME_PORT", 8000, "port to listen on; 0 picks a free one", "PORT"
    )
    root_path: Annotated[str, AfterValidator(_prefix)] = _env(
        "REALTIME_ROOT_PATH", "", "path prefix that a proxy in front takes away"
    )
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
    move_a_second: Annotated[int, Field(ge=0, le=10_000)] = _env(
        "REALTIME_MOVE_A_SECOND",
        30,
        "clients a second that a process with far more than the others asks to come back; 0: none",
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
    read_lag_s: Seconds = _env(
        "REALTIME_READ_LAG_S", 10.0, "seconds by which a standby that is read from may be behind; beyond: the primary"
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

    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = _env(
        "REALTIME_KEEP_ALIVE_S", 75, "seconds an idle HTTP connection is kept; more than the balancer in front keeps it"
    )
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
    max_waiting: Count = _env(
        "REALTIME_MAX_WAITING", 10_000, "requests of a process that may wait for a board to move; beyond: too_many"
    )
    max_subscriptions: Count = _env("REALTIME_MAX_SUBSCRIPTIONS", 64, "subscriptions a connection")
    max_watches: Count = _env("REALTIME_MAX_WATCHES", 16, "users whose rank a connection may watch")

    partitions: Annotated[int, Field(ge=1, le=100)] = _env(
        "REALTIME_PARTITIONS", 16, "parts of the store that leaderboards are spread over; fixed for a deployment"
    )
    boards: Literal["public", "private"] = _env(
        "REALTIME_BOARDS", "public", "who may read: everybody, or tokens of scope read"
    )
    origins: Annotated[str, AfterValidator(normalised)] = _env(
        "REALTIME_ORIGINS",
        "",
        "whose pages may use tokens too, as https://example.com or capacitor://localhost, with commas",
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
    def load(cls, environment: Mapping[str, str], needed: Collection[str] = ()) -> Settings:
        """Settings from an environment; those `needed` must be there. Raises StartupError that names every mistake."""
        values = given(environment)
        mistakes = [f"  {name}: there is no such setting; is {meant} meant?" for name, meant in _misspelt(values)]
        mistakes += list(_missing(needed, values))
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            mistakes += [f"  {_name_of(mistake['loc'])}: {_told(mistake)}" for mistake in error.errors()]
        if mistakes:
            raise StartupError("These settings are wrong:\n" + "\n".join(mistakes))
        return settings


NEEDED: Final = {
    "DATABASE_URL": "set it, or name a development instance (`realtime up`) with --data-dir",
    "DRAGONFLY_URL": "set it, or name a development instance (`realtime up`) with --data-dir",
    "REALTIME_SECRET": "set it; `openssl rand -hex 32` makes one",
}
"""What to do where one is missing."""


def _missing(needed: Iterable[str], values: Mapping[str, str]) -> Iterator[str]:
    for names in needed:
        name, *others = names.split("|")
        if not values.keys() & {name, *others}:
            yield f"  {name}: {NEEDED[name]}"


def _told(mistake: Mapping[str, Any]) -> str:
    """What is wrong, without what was given."""
    return str(mistake.get("ctx", {}).get("error") or mistake["msg"])


_AROUND: Final = re.compile(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$")
"""What files bring along around a name or a value: a line's end, a mark of UTF-8 at the beginning."""

_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
_SERVICE_NAME: Final = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
"""What Kubernetes sets for a service: for one called realtime REALTIME_PORT=tcp://10.0.0.1:8000, REALTIME_SERVICE_HOST
and more."""


def given(environment: Mapping[str, str]) -> dict[str, str]:
    """What an environment gives: values without space and quotes around them; the empty ones, and those that
    Kubernetes sets, left out."""
    values: dict[str, str] = {}
    for name, text in environment.items():
        value = _AROUND.sub("", text)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = _AROUND.sub("", value[1:-1])
        ours = _AROUND.sub("", name)
        is_service = ours.startswith(PREFIX) and (_SERVICE.fullmatch(value) or _SERVICE_NAME.fullmatch(ours))
        if value and not is_service:
            values[ours] = value
    return values


def _misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, the setting it is close to) of variables that would be passed over silently.

    Others that begin alike are left alone: they may be somebody else's.
    """
    known = {name.removeprefix(PREFIX): name for name in variables()}
    for name in names:
        if name.startswith(PREFIX) and name not in known.values():
            for close in get_close_matches(name.removeprefix(PREFIX), known, 1, ALIKE):
                yield name, known[close]


def _name_of(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def variables() -> dict[str, tuple[Any, str]]:
    """Every variable, its default and meaning, in order, as `web/docs/settings.html` and `realtime settings` show."""
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
        shown.append(InForce(names[0], str(value), source))
    return shown
