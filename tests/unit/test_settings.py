"""Settings: read from a mapping, all mistakes at once, no secret in any of them."""

from __future__ import annotations

import pytest

from realtime.errors import StartupError
from realtime.settings import SECRETS, Settings, in_force, variables
from realtime.settings import STORES as NEEDED

STORES = {
    "DATABASE_URL": "postgresql://user:hush@host/db",
    "DRAGONFLY_URL": "redis://:hush@host:6379/0",
    "REALTIME_SECRET": "hush" * 8,
}


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.load({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000), "loopback, unless told otherwise"
    assert settings.broadcast_interval_ms == 50
    assert settings.registration == "closed"
    assert settings.max_message_bytes == 65_536


def test_every_variable_can_be_set_and_is_documented() -> None:
    for name, (default, meaning) in variables().items():
        assert name in {"DATABASE_URL", "DRAGONFLY_URL"} or name.startswith("REALTIME_"), name
        assert meaning, name
        assert Settings.load({name: str(default)}) is not None


def test_values_come_from_their_variables() -> None:
    settings = Settings.load({**STORES, "REALTIME_PORT": "0", "REALTIME_SLOW_AFTER_S": "1.5", "PATH": "/bin"})
    assert settings.dragonfly_url.reveal() == STORES["DRAGONFLY_URL"]
    assert settings.port == 0
    assert settings.slow_after_s == 1.5


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.load({"REALTIME_PORT": ""}).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REALTIME_PORT", "65536"),
        ("REALTIME_PORT", "-1"),
        ("REALTIME_PORT", "http"),
        ("REALTIME_BATCH_LIMIT", "0"),
        ("REALTIME_BATCH_LIMIT", "1001"),
        ("REALTIME_BROADCAST_INTERVAL_MS", "0"),
        ("REALTIME_SUBSCRIBER_BUFFER_BYTES", "10"),
        ("REALTIME_SLOW_AFTER_S", "0"),
        ("REALTIME_REGISTRATION", "maybe"),
        ("REALTIME_LOG_LEVEL", "loud"),
        ("REALTIME_MAX_MESSAGE_BYTES", "1e3"),
        ("REALTIME_DATABASE_CONNECTIONS", "1"),
        ("DATABASE_URL", "mysql://host/db"),
        ("DATABASE_URL", "x"),
        ("DRAGONFLY_URL", "http://host"),
        ("REALTIME_DRAIN_S", "nan"),
        ("REALTIME_SLOW_AFTER_S", "inf"),
        ("REALTIME_MESSAGE_RATE", "Infinity"),
        ("REALTIME_HOST", "http://0.0.0.0"),
        ("REALTIME_HOST", "0.0.0.0:8000"),
        ("REALTIME_HOST", "a..b"),
        ("REALTIME_ROOT_PATH", "scores"),
        ("REALTIME_ROOT_PATH", "https://a.example/scores"),
        ("REALTIME_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("REALTIME_TRUSTED_PROXIES", "*"),
        ("REALTIME_ORIGINS", "*"),
        ("REALTIME_SECRET", "short"),
        ("REALTIME_SECRET", "x" * 32 + ",short"),
        ("REALTIME_SECRET", "x" * 32 + "\udcff"),
        ("REALTIME_JWKS_FILE", '{"keys":[]}'),
    ],
)
def test_a_value_out_of_bounds_is_named(name: str, value: str) -> None:
    with pytest.raises(StartupError, match=name):
        Settings.load({name: value})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(StartupError) as caught:
        Settings.load({"REALTIME_PORT": "http", "REALTIME_BATCH_LIMIT": "0", "REALTIME_REGISTRATION": "maybe"})
    for name in ("REALTIME_PORT", "REALTIME_BATCH_LIMIT", "REALTIME_REGISTRATION"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("REALTIME_BORDS", "REALTIME_BOARDS"), ("REALTIME_PROT", "REALTIME_PORT"), ("REALTIME_ORIGIN", "REALTIME_ORIGINS"),
     ("REALTIME_TRUSTED_PROXY", "REALTIME_TRUSTED_PROXIES")],
)  # fmt: skip
def test_a_misspelt_name_is_a_mistake_and_not_passed_over(name: str, meant: str) -> None:
    with pytest.raises(StartupError) as caught:
        Settings.load({name: "private", "REALTIME_PORT": "-1"})
    assert f"{name}: there is no such setting; is {meant} meant?" in str(caught.value)
    assert "REALTIME_PORT" in str(caught.value)


def services(name: str, port: int = 8000, protocol: str = "tcp", address: str = "10.0.0.1") -> dict[str, str]:
    """What Kubernetes sets in every container beside a service of that name."""
    url, one = f"{protocol}://{address}:{port}", f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(port), f"{name}_SERVICE_PORT_HTTP": str(port),
        f"{name}_PORT": url, one: url, f"{one}_PROTO": protocol, f"{one}_PORT": str(port), f"{one}_ADDR": address,
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        services("REALTIME"), services("REALTIME", 80, "udp"), services("REALTIME", address="[fd00::1]"),
        services("REALTIME_WORKER"), services("REALTIME_WORKER_METRICS"), services("REALTIME_MAX_SCORE"),
        services("REALTIME_HOST"), {"REALTIME_VERSION": "1"},
    ],
)  # fmt: skip
def test_what_others_set_that_begins_alike_is_left_alone(given: dict[str, str]) -> None:
    assert Settings.load(given) == Settings.load({})
    assert Settings.load({**given, "PORT": "9"}).port == 9
    with pytest.raises(StartupError, match=r"REALTIME_HOTS: .*is REALTIME_HOST meant"):
        Settings.load({**given, "REALTIME_HOTS": "9"})


@pytest.mark.parametrize("name", variables())
def test_what_a_file_of_variables_brings_along_is_no_part_of_a_value(name: str) -> None:
    given = {
        **STORES, "REALTIME_PORT": "9", "REALTIME_HOST": "::1", "REALTIME_LOG_LEVEL": "debug",
        "REALTIME_BOARDS": "private", "REALTIME_REGISTRATION": "open", "REALTIME_ORIGINS": "https://a.example",
        "REALTIME_JWKS_FILE": "keys.json", "REALTIME_TOKEN_AUDIENCE": "x", "REALTIME_TOKEN_ISSUER": "x",
        "REALTIME_ROOT_PATH": "/x", "REALTIME_TRUSTED_PROXIES": "10.0.0.0/8",
    }  # fmt: skip
    value = given.get(name, str(variables()[name][0]))
    plain = Settings.load({name: value})
    for written in (
        f"{value}\r",
        f" {value}\t",
        f"\ufeff{value}",
        f'"{value}"',
        f"'{value}'\r\n",
        f'" {value} "',
        f"\xa0{value}",
    ):
        assert Settings.load({name: written}) == plain, ascii(written)
    assert Settings.load({f"\ufeff{name}": value}) == plain
    for nothing in ("", " ", "\r", '""', "''", "\ufeff", '" "'):
        assert Settings.load({name: nothing}) == Settings.load({}), ascii(nothing)


@pytest.mark.parametrize("name", variables())
def test_nothing_that_was_given_is_told_in_a_mistake(name: str) -> None:
    """A secret may stand under any name: one line down in a file, one column off in a form."""
    for value in (
        "hush",
        "hush://hush",
        "a b hush",
        "hush:hush@hush/#?%",
        "-hush",
        "1hush",
        "{hush",
        "hush\udcff",
        "höush*hush",
    ):
        try:
            settings = Settings.load({name: value})
        except StartupError as error:
            assert "hush" not in str(error)
            assert str(error).count("\n") == 1 and f"\n  {name}: " in str(error), "one sentence, naming the variable"
            seen = [error.__cause__, error.__context__]
            assert seen == [None, None], "a traceback would show these"
        else:
            assert name not in SECRETS or "hush" not in f"{settings} {settings!r} {in_force(settings, {})}"


def test_settings_can_be_shown_whole() -> None:
    settings = Settings.load(STORES)
    assert "hush" not in f"{settings} {settings!r} {settings.model_dump()} {in_force(settings, {})}"
    shown = {one.name: one.value for one in in_force(settings, {})}
    assert shown["DATABASE_URL"] == "postgresql://user:***@host/db"
    assert shown["DRAGONFLY_URL"] == "redis://:***@host:6379/0"
    assert shown["REALTIME_SECRET"] == "***"


def test_no_secret_is_told_in_a_mistake() -> None:
    with pytest.raises(StartupError) as caught:
        Settings.load({**STORES, "REALTIME_PORT": "http"})
    assert "hush" not in str(caught.value)
    assert set(STORES) | {"REALTIME_READ_DATABASE_URL"} == SECRETS


@pytest.mark.parametrize("missing", STORES)
def test_what_serving_needs_is_named_where_it_is_missing(missing: str) -> None:
    given = {name: value for name, value in STORES.items() if name != missing}
    with pytest.raises(StartupError, match=f"{missing}: set it") as caught:
        Settings.load({**given, "REALTIME_PORT": "http"}, NEEDED)
    assert "hush" not in str(caught.value)
    assert "REALTIME_PORT" in str(caught.value), "what is wrong and what is missing are told in one"
    assert Settings.load(STORES, NEEDED).secret.reveal() == STORES["REALTIME_SECRET"]


def test_public_keys_are_as_good_as_a_secret_where_tokens_are_only_checked() -> None:
    given = {name: value for name, value in STORES.items() if name != "REALTIME_SECRET"}
    assert not Settings.load({**given, "REALTIME_JWKS_FILE": "keys.json"}, NEEDED).secret


def test_settings_do_not_change() -> None:
    settings = Settings.load({})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 9  # type: ignore[misc]
