"""Ray as a Cluster: the only module that starts, joins and calls it.

A local Ray is started as small as Ray allows (local_ray.py, ray_helpers.py): on 2 idle cores 0.6 s (Ray 2.60). It
starts `n_cpus` worker processes ahead and an actor then takes 0.03 s instead of 0.9 s; hence n_cpus is the number of
actors, whatever the machine has.
"""

import logging
import os
import pickle
import signal
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distcalib.actors.actor import ActorProcess
from distcalib.actors.cluster import ActorLost, Ref
from distcalib.actors.local_ray import PrivateRay
from distcalib.actors.lost_pages import crashes_told
from distcalib.actors.machines import Survey
from distcalib.actors.node_survey import ask_nodes
from distcalib.actors.ray_helpers import replaced
from distcalib.actors.ray_module import load_ray
from distcalib.actors.ray_watchdog import Vigil, end_process
from distcalib.actors.signals import interrupt_held, termination_kept
from distcalib.errors import MeasureError

_CLUSTER_LOGS = Path("/tmp/ray/session_latest/logs")
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 2.0

_SHORT_OF_MEMORY = "running low on memory"  # how Ray says so of an actor; of each that was killed it says it might be


class RayActor:
    """A handle of one actor process; calls return at once with a reference."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *args: object, n_returns: int = 1) -> Any:
        """Queue a call: one reference, or a list of `n_returns`."""
        if method == "run":  # by far the most: as one argument of bytes it costs the driver half as much
            return self._handle.run_packed.remote(pickle.dumps(args))
        if method == "load_and_run":
            key, label, program, *rest = args
            return self._handle.load_and_run_packed.remote(program, pickle.dumps((key, label, *rest)))
        remote = getattr(self._handle, method)
        return (remote if n_returns == 1 else remote.options(num_returns=n_returns)).remote(*args)

    def kill(self) -> None:
        """End the process."""
        load_ray().kill(self._handle, no_restart=True)


class RayCluster:
    """A connection to Ray: to the one already used in this process, to `address`, or to a local one started here."""

    def __init__(self, address: str | None, n_cpus: int) -> None:
        """`address` None means RAY_ADDRESS if set (as `ray job submit` does), else a local Ray of `n_cpus`.

        Raises MeasureError when Ray cannot be reached or started.
        """
        self._ours = not load_ray().is_initialized()
        self._actor_class: Any = None
        self._vigil: Vigil | None = None
        self._private: PrivateRay | None = None
        given = address
        source = f"--address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}"
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            if not self._ours and given:
                _refuse_other(given)
            if self._ours:
                with interrupt_held(), termination_kept(), _no_handler():
                    if address == "local":
                        self._private = PrivateRay(n_cpus)
                    else:
                        _join(address, source)
            crashes_told()
            self._logs = _CLUSTER_LOGS if self._private is None else self._private.logs
            self.home: str = load_ray().get_runtime_context().get_node_id()
            if self._ours:
                needed = self._needed(with_gcs=self._private is not None)
                self._vigil = Vigil(needed, partial(end_process, self._logs))
        except BaseException:  # Ctrl-C that was held back, too
            self.close()
            raise

    def put(self, value: object) -> Ref:
        """Store once for all actors."""
        return load_ray().put(value)

    def keep(self, ref: Ref) -> Ref:
        """The same value on the driver's machine, so that it outlives the node that made it; on one machine itself.

        Raises ActorLost if it is too late.
        """
        return ref if len(self.live_nodes()) == 1 else load_ray().put(self.get(ref))

    def live_nodes(self) -> dict[str, str]:
        """The nodes that Ray has not given up, by id in hex: what a person calls them."""
        nodes: Any = load_ray().nodes()
        return {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for node in nodes
            if node["Alive"]
        }

    def survey(self, known: Collection[str] = ()) -> Survey:
        """What each node is, but those whose ids are `known`."""
        return ask_nodes(known)

    def store_bytes(self) -> dict[str, int]:
        """The size of each node's object store, by id in hex."""
        nodes: Any = load_ray().nodes()
        return {node["NodeID"]: int(node["Resources"].get("object_store_memory", 0)) for node in nodes}

    def answering_nodes(self) -> dict[str, str]:
        """Of the live nodes those whose Ray answers now: up to a minute may pass until Ray gives a lost one up."""
        nodes: Any = load_ray().nodes()
        ports = {node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in nodes}
        live = self.live_nodes()  # one that has come since is not in `ports`, and will be asked the next time
        return {
            node: name for node, name in live.items() if node == self.home or (node in ports and _listens(*ports[node]))
        }

    @property
    def reserves(self) -> bool:
        """Whether actors reserve CPUs: in a cluster that was joined here. In a Ray that this process had already, its
        owner decides what runs beside what."""
        return self._ours and self._private is None

    def cpus(self) -> dict[str, tuple[float, float]]:
        """The CPUs of each live node as Ray counts them, and how many of them nobody has reserved, by id in hex."""
        free: Any = load_ray()._private.state.available_resources_per_node()
        total = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in load_ray().nodes() if node["Alive"]}
        return {node: (n, free.get(node, {}).get("CPU", 0.0)) for node, n in total.items()}

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> RayActor:
        """Start an actor process on `node` ("": this machine). Pinning is what keeps the actors of a run apart; in a
        cluster that others use, too, each reserves `n_cpus` of Ray's, which must be free: else it would wait for
        ever."""
        if self._actor_class is None:  # Ray (2.60) takes 15 ms to look at a class: of 1,024 actors, 15 s
            self._actor_class = load_ray().remote(ActorProcess)
        there = load_ray().util.scheduling_strategies.NodeAffinitySchedulingStrategy(node or self.home, soft=False)
        return RayActor(self._actor_class.options(num_cpus=n_cpus, scheduling_strategy=there).remote())

    def get(self, ref: Ref) -> Any:
        """The value; raises ActorLost if its actor died, MeasureError if it cannot be had for another reason."""
        try:
            return load_ray().get(ref)
        except _lost() as error:
            short = isinstance(error, load_ray().exceptions.OutOfMemoryError) or _SHORT_OF_MEMORY in str(error)
            raise ActorLost(str(error), short) from error
        except load_ray().exceptions.RayTaskError as error:
            raise MeasureError(
                f"an actor cannot take its task: {_last_line(error)}; is the same distcalib installed there?"
            ) from error
        except load_ray().exceptions.RayError as error:
            raise MeasureError(f"Ray: {_last_line(error)}; look into {self._logs}") from error

    def wait(self, refs: Sequence[Ref], seconds: float) -> list[Ref]:
        """Wait until one is there, at most `seconds`, then return all that are."""
        # Under load the first finds some: half the calls.
        for n, patience in ((len(refs), 0), (1, seconds)) if seconds else ((len(refs), 0),):
            ready, _ = load_ray().wait(list(refs), num_returns=n, timeout=patience, fetch_local=False)
            if ready:
                return list(ready)
        return []

    def close(self) -> None:
        """Disconnect, and end a local Ray that was started here; one that was found running stays."""
        if self._vigil is not None:
            self._vigil.end()
        if self._ours and load_ray().is_initialized():
            with interrupt_held():
                load_ray().shutdown()
        if self._private is not None:
            self._private.end()

    def _needed(self, with_gcs: bool) -> list[tuple[str, int]]:
        """Where the raylet of this machine listens, and the GCS: where a cluster has it, it may come back."""
        nodes: Any = load_ray().nodes()
        raylet = [(n["NodeManagerAddress"], n["NodeManagerPort"]) for n in nodes if n["NodeID"] == self.home]
        host, _, port = load_ray().get_runtime_context().gcs_address.rpartition(":")
        return [*raylet, (host.strip("[]"), int(port))] if with_gcs else raylet


@dataclass(frozen=True)
class RaySource:
    """The Ray already used in this process, else the one at `address`, else at RAY_ADDRESS, else a local one."""

    address: str | None = None

    @property
    def joins(self) -> bool:
        """Whether it is a Ray that runs, rather than one that is started on this machine."""
        return load_ray().is_initialized() or (self.address or os.environ.get("RAY_ADDRESS") or "local") != "local"

    def open(self, n_cpus: int) -> RayCluster:
        """Connect; a local Ray has `n_cpus`. Raises MeasureError when Ray cannot be reached or started."""
        return RayCluster(self.address, n_cpus)


def _no_handler() -> AbstractContextManager[None]:
    """Keep Ray from handling SIGTERM where this process does: see termination_kept."""
    utils = load_ray()._private.utils
    is_ours = callable(signal.getsignal(signal.SIGTERM)) and hasattr(utils, "set_sigterm_handler")
    return replaced(utils, "set_sigterm_handler", lambda *_: None) if is_ours else nullcontext()


def _lost() -> tuple[type[Exception], ...]:
    """What Ray raises where the process, or the value, is gone."""
    exceptions = load_ray().exceptions
    return (exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.ObjectLostError)


def _refuse_other(address: str) -> None:
    """Raise MeasureError where this process uses another Ray than the one at `address`; "auto" may be any."""
    used: str = load_ray().get_runtime_context().gcs_address
    if address != "auto" and _resolved(address) != _resolved(used):
        raise MeasureError(
            f"--address {address}: this process is connected to the Ray at {used} already; leave the address out, or "
            "call ray.shutdown() first"
        )


def _resolved(address: str) -> tuple[str, str]:
    """Address and port of HOST:PORT, whatever the host is called."""
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        return socket.gethostbyname(host.strip("[]")), port
    return host, port


def _join(address: str, source: str) -> None:
    """Join the Ray at `address`, which was given as `source`; MeasureError if that fails."""
    if not os.environ.get("RAY_TMPDIR", "unset"):  # Ray takes an empty one for a folder, and waits half a minute for it
        del os.environ["RAY_TMPDIR"]
    try:
        resolved = _started_here(source) if address == "auto" else address
        _check_listening(resolved, source)
        with _few_trials():
            load_ray().init(address=resolved, logging_level=logging.ERROR, log_to_driver=False)
    except MeasureError:
        raise
    except Exception as error:
        if any("InvalidAuthToken" in str(each) for each in (error, error.__cause__)):
            raise MeasureError(
                f"{source}: Ray wants a token there that this machine does not show; copy ~/.ray/auth_token from its "
                "head node and set RAY_AUTH_MODE=token"
            ) from error
        at = "" if resolved == address else f" ({resolved})"
        raise MeasureError(
            f"{source}{at}: {type(error).__name__}: {_last_line(error)}; is Ray running there?"
        ) from error


def _started_here(source: str) -> str:
    """Where the cluster is that was started on this machine, by `ray start`. Ray itself would look through the command
    lines of all processes, too, and join what another program has started for itself, be it another user's."""
    folders = [Path(folder) for folder in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp") if folder]
    files = [folder / "ray" / "ray_current_cluster" for folder in folders]  # as Ray chooses among them
    for file in files:
        with suppress(OSError, ValueError):
            if address := file.read_text().strip():
                return address
    raise MeasureError(
        f"{source}: no Ray cluster was started on this machine, for {files[0]} is not there; start one (`ray start "
        "--head`), or give the HOST:PORT of one"
    )


@contextmanager
def _few_trials() -> Iterator[None]:
    """Let Ray (2.60) try to join 3 times, once a second; by default it tries 20 times before it tells of a wrong token,
    and writes each to stderr. A local Ray needs them, while it starts."""
    name = "RAY_gcs_server_port_wait_time_s"
    before = os.environ.get(name)
    os.environ.setdefault(name, "3")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _check_listening(address: str, source: str) -> None:
    """Raise OSError or MeasureError unless something answers at HOST:PORT; Ray itself would go on trying for ten
    minutes (2.60, measured) and write all of it to stderr."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise MeasureError(f"{source}: is neither auto nor HOST:PORT, such as 10.0.0.1:6379")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
        pass


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
