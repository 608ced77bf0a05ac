"""A cluster of processes of this machine that are forked from one which has imported everything.

They are what Ray's actors are: processes of their own that run ActorProcess, pinned, each in its environment, that get
arrays as read-only views and may die. An actor takes some 0.05 s of CPU until it works, and one of Ray's a second.
What Ray alone does is not here: other nodes, a lack of memory, whatever an actor is when it cannot import the driver's
modules.
"""

import itertools
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import pytest

from distcalib.actors.cluster import ActorLost
from distcalib.actors.machines import Survey
from distcalib.actors.nodes import describe_this_node
from distcalib.errors import MeasureError
from tests.actors.stored import Stored, store

ROOT = Path(__file__).resolve().parents[2]
_SHM = Path("/dev/shm")


class ForkServer:
    """The process that actors are forked from; a context manager, after which none of them is left."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._numbers = itertools.count()
        self.folder = Path(tempfile.mkdtemp(prefix="distcalib-forked-", dir=_SHM if _SHM.is_dir() else None))
        with theirs:
            # Python 3.12 warns of a fork beside OpenBLAS's threads, which start again by themselves.
            command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.actors.fork_server"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self.folder)],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the tests
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def fork(self, theirs: socket.socket) -> int:
        """Start an actor that listens on `theirs`; its number."""
        number = next(self._numbers)
        socket.send_fds(self._control, [f"fork {number}".encode()], [theirs.fileno()])
        return number

    def kill(self, number: int) -> None:
        """End an actor, without waiting until it is gone."""
        self._control.send(f"kill {number}".encode())

    def reap(self) -> None:
        """Wait until those that were killed are gone."""
        self._control.send(b"reap")
        assert self._control.recv(64), f"the fork server ended with exit code {self._process.wait()}"

    def close(self) -> None:
        """End what is left of the actors, and the process."""
        self._control.close()
        self._process.wait()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ref:
    """Stands for a value, which comes as `stored`, or else as `error`."""

    def __init__(self, stored: Stored | None = None) -> None:
        self.stored = stored
        self.error: Exception | None = None

    @property
    def is_there(self) -> bool:
        """Whether getting it does not wait."""
        return self.stored is not None or self.error is not None


class ForkedActor:
    """A handle of one process."""

    def __init__(self, server: ForkServer, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._number = server.fork(theirs)
        self._server = server
        self.connection = Connection(ours.detach())
        self._called: deque[list[Ref]] = deque()  # calls that the process has, oldest first
        self._queue: deque[tuple[str, int, tuple[object, ...], list[Ref]]] = deque()  # calls that wait for a value
        self._send((sys.path, folder))

    @property
    def is_called(self) -> bool:
        """Whether something may come of it."""
        return bool(self._called)

    def call(self, method: str, *args: object, n_returns: int = 1) -> Any:
        """Queue a call: one reference, or a list of `n_returns`."""
        refs = [Ref() for _ in range(n_returns)]
        self._queue.append((method, n_returns, args, refs))
        self.send_ready()
        return refs if n_returns > 1 else refs[0]

    def send_ready(self) -> bool:
        """Give the process the calls whose values are there, in order; whether there were any."""
        n_before = len(self._queue)
        while self._queue and all(arg.is_there for arg in self._queue[0][2] if isinstance(arg, Ref)):
            method, n_returns, args, refs = self._queue.popleft()
            self._called.append(refs)
            errors = [arg.error for arg in args if isinstance(arg, Ref) and arg.error is not None]
            if errors:
                self._called.pop()
                _fail(refs, errors[0])
            elif self.connection.closed:
                self._die()
            else:
                self._send((method, n_returns, tuple(arg.stored if isinstance(arg, Ref) else arg for arg in args)))
        return len(self._queue) < n_before

    def receive(self) -> None:
        """Take an answer that is there, or the end of the process."""
        try:
            answer: list[Stored] | str = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._die()
            return
        refs = self._called.popleft()
        if isinstance(answer, str):
            _fail(refs, MeasureError(f"an actor cannot take its task: {answer}"))
            return
        for ref, stored in zip(refs, answer, strict=True):
            ref.stored = stored

    def kill(self) -> None:
        """End the process; twice does no harm."""
        if not self.connection.closed:
            self._die()

    def _send(self, message: object) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(message, protocol=5))
        except OSError:
            self._die()

    def _die(self) -> None:
        """Nothing comes back any more."""
        if not self.connection.closed:
            self.connection.close()
            self._server.kill(self._number)
        for refs in itertools.chain(self._called, (refs for *_, refs in self._queue)):
            _fail(refs, ActorLost("the actor's process ended"))
        self._called.clear()
        self._queue.clear()


class ForkedMachines:
    """The one machine, as a pool uses it."""

    home = "this machine"
    reserves = False

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._folder = Path(tempfile.mkdtemp(dir=server.folder))
        self._actors: list[ForkedActor] = []

    def put(self, value: object) -> Ref:
        """Write it, for all actors."""
        return Ref(store(value, self._folder))

    def keep(self, ref: Ref) -> Ref:
        """Itself: there is one machine."""
        return ref

    def get(self, ref: Ref) -> Any:
        """The value; raises ActorLost if its actor died, MeasureError if that could not even be called."""
        self._take(0.0)
        while not ref.is_there:
            self._take(None)
        if ref.error is not None:
            raise ref.error
        assert ref.stored is not None
        return ref.stored.load()

    def wait(self, refs: Sequence[Ref], seconds: float) -> list[Ref]:
        """Wait until one is there, at most `seconds`, then return all that are."""
        self._take(0.0)
        deadline = time.monotonic() + seconds
        while not any(ref.is_there for ref in refs) and (left := deadline - time.monotonic()) > 0.0:
            self._take(left)
        return [ref for ref in refs if ref.is_there]

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> ForkedActor:
        """Fork it."""
        assert node in ("", self.home)
        self._actors.append(ForkedActor(self._server, self._folder))
        return self._actors[-1]

    def live_nodes(self) -> dict[str, str]:
        """The one."""
        return {self.home: socket.gethostname()}

    answering_nodes = live_nodes

    def survey(self, known: Collection[str] = ()) -> Survey:
        """What this machine is."""
        return Survey(() if self.home in known else (describe_this_node(self.home),), {})

    def store_bytes(self) -> dict[str, int]:
        """The size of the file system that values are written to."""
        return {self.home: describe_this_node().shm_bytes}

    def cpus(self) -> dict[str, tuple[float, float]]:
        """Nobody counts them."""
        return {}

    def close(self) -> None:
        """End the actors, and remove the values."""
        for actor in self._actors:
            actor.kill()
        if self._actors:
            self._server.reap()
        self._actors.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self, seconds: float | None) -> None:
        """Take what has come of the actors, or comes first within `seconds`; None: whenever it does."""
        by_connection: dict[object, ForkedActor] = {each.connection: each for each in self._actors if each.is_called}
        assert by_connection or seconds is not None, "waits for ever: nobody was called"
        for connection in wait_for([each.connection for each in by_connection.values()], seconds):
            by_connection[connection].receive()
        while any(actor.send_ready() for actor in self._actors):  # one that fails may be what another waits for
            pass


class ForkedSource:
    """What a pool is given in place of RaySource: as where no Ray runs."""

    joins = False

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self.n_opened = 0

    def open(self, n_cpus: int) -> ForkedMachines:
        """Machines of this pool's own."""
        self.n_opened += 1
        return ForkedMachines(self._server)


@contextmanager
def forking(server: ForkServer) -> Iterator[ForkedSource]:
    """Inside the block sessions fork their actors."""
    source = ForkedSource(server)

    def open_source(address: str | None) -> ForkedSource:
        assert address is None, "only Ray has addresses: use one_ray"
        return source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distcalib.session.session.RaySource", open_source)
        yield source


def _fail(refs: Sequence[Ref], error: Exception) -> None:
    for ref in refs:
        ref.error = error
