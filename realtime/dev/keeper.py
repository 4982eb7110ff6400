"""The keeper: a tiny parent for one server process, which ends when its owner does.

Owns: the life of one server process (PostgreSQL or the store): starting it under the right user, starting it again
where it was killed, stopping it when the owner lets go, whether that closed the line on purpose or was killed.
Must never: import anything beyond the standard library (it is run as a file, by `python -I -S`), outlive its
server, or leave it running.
Assumes: standard input is a pipe of which only the owner holds the other end; standard error is the server's
log; it was started as leader of its own session, so that no terminal signal and no kill of the owner's
process group reaches it or the server.

    keeper.py OWNER_PID STOP_SIGNAL GRACE_SECONDS USER_ID GROUP_ID PROGRAM [ARGUMENT...]

Prints the first server's pid on one line. The exit status is the last server's (128 + n where signal n ended it). A
server that ends by itself is not started again: it has said why in its log. A user id of -1 means: the same user.

An end of file is the one signal that comes however the owner ends, on every system. The kernel's parent-death
signal (Linux) is the second net, for the case that the keeper itself is killed; here it is safe, since the
keeper forks from its main thread, which lives as long as the keeper.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time

try:
    import ctypes  # here and not where it is used: the server's user may be unable to read Python's library
except ImportError:  # a Python built without libffi has only the first net
    ctypes = None  # type: ignore[assignment]

PARENT_LOOK = 1.0  # seconds between looks at the parent: a forked child of the owner may hold the pipe open
REVIVE = 3.0  # seconds from a server's violent end to the next: for whoever killed it to put another in its place
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Life:
    """Which process is the server now, and whether it is to end."""

    def __init__(self, stop: int) -> None:
        self.server = 0
        self.over = threading.Event()
        self._stop = stop

    def end(self, signal_number: int | None = None) -> None:
        """Stop the server; none follows it."""
        self.over.set()
        with contextlib.suppress(ProcessLookupError):  # dead already, and the next one not yet there
            os.kill(self.server, signal_number or self._stop)


def main(arguments: list[str]) -> int:
    """Run the server until it ends by itself or the owner lets go; return the exit status."""
    owner, stop, user, group = (int(arguments[place]) for place in (0, 1, 3, 4))
    grace = float(arguments[2])
    life = Life(stop)
    life.server = start(arguments[5:], stop, user, group)
    for wish in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(wish, lambda *_: life.end())
    with contextlib.suppress(BrokenPipeError):  # the owner is gone already
        print(life.server, flush=True)
    threading.Thread(target=stop_with_owner, args=(owner, life, grace), daemon=True).start()
    _, status = os.waitpid(life.server, 0)
    if os.WIFSIGNALED(status):
        while not life.over.wait(REVIVE):
            life.server = start(arguments[5:], stop, user, group)
            if life.over.is_set():  # just now: the signal went to the one before
                life.end()
            _, status = os.waitpid(life.server, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def start(program: list[str], stop: int, user: int, group: int) -> int:
    """Start the server as a child; return its pid."""
    keeper = os.getpid()
    server = os.fork()
    if server == 0:
        become_server(program, keeper, stop, user, group)
    return server


def become_server(program: list[str], keeper: int, stop: int, user: int, group: int) -> None:
    """Turn this forked child into the server; never returns."""
    try:
        os.umask(0o077)
        if user != -1:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
        die_with_parent(stop)  # after the change of user, which clears it
        if os.getppid() != keeper:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        os.execv(program[0], program)  # noqa: S606 - the point of this file
    except OSError as error:
        os.write(2, f"{program[0]} could not be started: {error}\n".encode())
    os._exit(127)


def die_with_parent(stop: int) -> None:
    if ctypes and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, stop)


def stop_with_owner(owner: int, life: Life, grace: float) -> None:
    """Wait until the owner lets go, then stop the server: politely, and after `grace` seconds for good."""
    while os.getppid() == owner and not select.select([0], [], [], PARENT_LOOK)[0]:
        pass
    life.end()
    time.sleep(grace)
    life.end(signal.SIGKILL)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
