"""The watch over what Ray needs: a listening socket stands for its processes."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from distcalib.actors.ray_watchdog import Address, Vigil

SOON = 5.0
Watch = Callable[[Address], threading.Event]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(SOON)
        yield made


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Begins to watch an address; the event is set when it is given up."""
    vigils: list[Vigil] = []

    def begin(address: Address) -> threading.Event:
        ended = threading.Event()
        vigils.append(Vigil([address], ended.set))
        return ended

    yield begin
    for vigil in vigils:
        vigil.end()


def test_vigil_tells_when_the_server_is_gone(server: socket.socket, watch: Watch) -> None:
    ended = watch(server.getsockname())
    connection, _ = server.accept()
    connection.sendall(b"a greeting")
    assert not ended.wait(0.1)
    server.close()
    connection.close()
    assert ended.wait(SOON)


def test_vigil_comes_back_to_a_server_that_hung_up(server: socket.socket, watch: Watch) -> None:
    ended = watch(server.getsockname())
    for _ in range(3):
        connection, _ = server.accept()
        connection.close()
    connection, _ = server.accept()
    assert not ended.is_set()
    connection.close()


def test_vigil_that_has_ended_says_nothing(server: socket.socket) -> None:
    ended = threading.Event()
    vigil = Vigil([server.getsockname()], ended.set)
    connection, _ = server.accept()
    vigil.end()
    vigil.end()
    server.close()
    connection.close()
    assert not ended.wait(0.2)


def test_vigil_ends_the_process_with_a_sentence() -> None:
    program = (
        "import socket, time\n"
        "from pathlib import Path\n"
        "from distcalib.actors.ray_watchdog import Vigil, end_process\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "vigil = Vigil([server.getsockname()], lambda: end_process(Path('/its/logs')))\n"
        "connection, _ = server.accept()\n"
        "server.close(), connection.close()\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("distcalib: Ray on this machine was killed, and nothing can be measured without it; ")
    assert done.stderr.count("\n") == 1
