"""The process that actors are forked from, and what they do then: python -m tests.actors.fork_server FD DIR

It has imported what an actor imports, which takes a second of CPU, and used nothing of it: oneDNN reads its environment
when OpenVINO loads its plugin for the CPU, so a fork takes the limit that `prepare` sets (test_forked.py).

On the socket FD it takes `fork NUMBER`, with the socket of the new actor, `kill NUMBER`, and `reap`, which it answers
once all that were killed are gone. When the socket is closed, whatever the tests died of, it kills what is left,
removes DIR, where the values are, and ends.
"""

import contextlib
import os
import pickle
import shutil
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import distcalib.session.backend  # noqa: F401  what a worker is made of
from distcalib.actors.actor import ActorProcess
from tests.actors.stored import Stored, store


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    children: dict[str, int] = {}
    killed: list[int] = []
    while True:
        request, sockets, _, _ = socket.recv_fds(control, 64, 1)
        name, _, number = request.decode().partition(" ")
        if name == "fork":
            pid = os.fork()
            if not pid:
                control.close()
                work(Connection(sockets[0]))
            os.close(sockets[0])
            children[number] = pid
        elif name == "kill":  # one that has ended by itself is there until it is waited for: its id is nobody else's
            killed.append(children.pop(number))
            os.kill(killed[-1], signal.SIGKILL)
        else:
            for pid in children.values() if not request else ():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            while killed:
                os.waitpid(killed.pop(), 0)
            if not request:
                shutil.rmtree(sys.argv[2])
                return
            control.send(b"reaped")


def work(connection: Connection) -> None:
    """Be an actor until the driver is gone."""
    code = 1
    with contextlib.suppress(EOFError, OSError):
        sys.path[:], folder = pickle.loads(connection.recv_bytes())
        process = ActorProcess()
        while True:
            connection.send_bytes(pickle.dumps(answer(process, connection.recv_bytes(), folder)))
            code = 0
    os._exit(code)


def answer(process: ActorProcess, message: bytes, folder: Path) -> list[Stored] | str:
    """What each reference of a call stands for, or what was raised."""
    try:
        method, n_returns, given = pickle.loads(message)
        value = getattr(process, method)(*(each.load() if isinstance(each, Stored) else each for each in given))
        values = [value] if n_returns == 1 else list(value)
        assert len(values) == n_returns, f"{method} gives {len(values)} values"
        return [store(each, folder) for each in values]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
