"""Settings: read from a mapping, all mistakes at once, no secret in any of them."""

from __future__ import annotations

import pytest

from realtime.errors import StartupError
from realtime.settings import SECRETS, Settings, variables

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
    assert settings.database_url == STORES["DATABASE_URL"]
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
    [("REALTIME_BORDS", "REALTIME_BOARDS"), ("REALTIME_ORIGIN", "REALTIME_ORIGINS"),
     ("REALTIME_TRUSTED_PROXY", "REALTIME_TRUSTED_PROXIES")],
)  # fmt: skip
def test_a_misspelt_name_is_a_mistake_and_not_passed_over(name: str, meant: str) -> None:
    with pytest.raises(StartupError) as caught:
        Settings.load({name: "private", "REALTIME_PORT": "-1"})
    assert f"{name}: there is no such setting; is {meant} meant?" in str(caught.value)
    assert "REALTIME_PORT" in str(caught.value)


def test_what_else_begins_alike_is_left_alone() -> None:
    services = {"REALTIME_SERVICE_HOST": "10.0.0.1", "REALTIME_SERVICE_PORT": "80", "REALTIME_PORT_8000_TCP": "tcp://a"}
    assert Settings.load({**services, "REALTIME_VERSION": "1"}) == Settings.load({})


def test_no_secret_is_told_in_a_mistake() -> None:
    with pytest.raises(StartupError) as caught:
        Settings.load({**STORES, "REALTIME_PORT": "http"})
    assert "hush" not in str(caught.value)
    assert set(STORES) == SECRETS


@pytest.mark.parametrize("missing", STORES)
def test_what_serving_needs_is_named_where_it_is_missing(missing: str) -> None:
    given = {name: value for name, value in STORES.items() if name != missing}
    with pytest.raises(StartupError, match=f"Set {missing}") as caught:
        Settings.load(given).require_stores()
    assert "hush" not in str(caught.value)
    assert Settings.load(STORES).require_stores().secret == STORES["REALTIME_SECRET"]


def test_settings_do_not_change() -> None:
    settings = Settings.load({})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 9  # type: ignore[misc]
