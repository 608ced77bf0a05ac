"""A local Ray of this process's own: its start, with a limit and one more trial, and its end.

Ray is started in a private folder, see private_ray.py, with its processes on 127.0.0.1 alone: it hands the address of
its node to each of them, and takes that of the loopback device where it is told that there will be no other node. Only
that switch (ENABLE_RAY_CLUSTER, for Windows and macOS) does so: the loopback address as an argument it replaces."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from distcalib.actors.private_ray import PrivateFolder, cause_in, kill_children, stderr_to, watched
from distcalib.actors.ray_helpers import has_idle_agents, no_helpers, replaced
from distcalib.actors.ray_module import load_ray
from distcalib.actors.surroundings import start_lacks
from distcalib.errors import MeasureError

START_SECONDS = 60.0  # it takes 2 s on an idle machine
_NODE_SECONDS, _POLL_SECONDS = 20.0, 0.02
_BUSY = 4.0  # processes that want a core, for each that there is

_ABORTED = (
    "distcalib: Ray did not start, and this process had to end with it; a limit on processes, threads or memory is the "
    "usual cause, and distcalib doctor looks at them; its logs are in {}"
)


class PrivateRay:
    """A Ray that was started here, for `n_cpus` actors; `end` it after ray.shutdown.

    Raises MeasureError, with the cause as far as it can be seen; the logs stay then."""

    def __init__(self, n_cpus: int) -> None:
        refused = [lack.sentence for lack in start_lacks(n_cpus, helpers=not has_idle_agents()) if lack.refused]
        if refused:
            raise MeasureError(f"Ray cannot start on this machine: {'; '.join(refused)}")
        self._variables = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
        try:
            self._folder = PrivateFolder()
        except OSError as error:
            raise MeasureError(
                f"Ray cannot start on this machine: {error.filename}: {error.strerror}; set TMPDIR to a folder that "
                "you may write to, such as /tmp"
            ) from error
        for trial in range(2):
            try:
                self._start(n_cpus, bare=not trial)
                return
            except Exception as error:
                self._restore()  # or the second trial would take the token of the first for the user's
                # The second trial has Ray's helpers, and needs more.
                if trial or any(lack.refused for lack in start_lacks(n_cpus, helpers=True)):
                    self._folder.remove(keep_logs=True)
                    raise MeasureError(_sentence(self._folder.path, n_cpus, error, trial + 1)) from error
                self._folder.remove()
                self._folder = PrivateFolder()
            except BaseException:  # Ctrl-C, twice
                self.end()
                raise

    @property
    def logs(self) -> Path:
        """Where its logs are."""
        return self._folder.logs

    def end(self) -> None:
        """Let go of the folder, and of what the start has left in the environment."""
        self._folder.remove()
        self._restore()

    def _start(self, n_cpus: int, bare: bool) -> None:
        """`bare`: without Ray's helpers, which the second trial leaves as they are."""
        folder = self._folder
        os.environ.update(folder.environment)
        with ExitStack() as stack:
            stack.enter_context(watched(START_SECONDS, _ABORTED.format(folder.path)))
            known = {child.pid for child in psutil.Process().children(recursive=True)}
            stack.enter_context(_apart())
            if bare:
                stack.enter_context(no_helpers())
            stack.enter_context(_on_loopback())
            stack.enter_context(_node_awaited())
            stack.enter_context(stderr_to(folder.path / "driver.err"))
            try:
                load_ray().init(
                    address="local",
                    num_cpus=n_cpus,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=str(folder.inner),
                )
            except BaseException:
                with suppress(Exception):
                    load_ray().shutdown()
                kill_children(known)
                raise

    def _restore(self) -> None:
        for name, value in self._variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget()


def _forget() -> None:
    """Have Ray read its token and its mode anew: a cluster that is joined later has others. Older Rays have none."""
    with suppress(Exception):
        raylet: Any = __import__("ray._raylet", fromlist=["_raylet"])
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        raylet.Config.initialize("")


def _sentence(folder: Path, n_cpus: int, error: Exception, n_trials: int) -> str:
    """That it did not start, why as far as that can be seen, and what would do."""
    lacks = start_lacks(n_cpus)
    if lacks:
        why = "; ".join(lack.sentence for lack in lacks)
    elif isinstance(error, OSError) and error.strerror:  # of a process that could not be made
        why = f"{error.strerror}{f' ({error.filename})' if error.filename else ''}; see to that"
    elif said := cause_in(folder):
        why = f"{said}; see to that"
    elif os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1):
        why = f"{os.getloadavg()[0]:.0f} processes want the {os.cpu_count()} core(s); wait until they are done"
    else:
        why = "nothing is seen to be wrong with the machine; give the command once more"
    times = ", twice" if n_trials > 1 else ""
    return f"Ray did not start on this machine{times}: {why}; its logs are in {folder}"


def _on_loopback() -> AbstractContextManager[None]:
    """The address of this node is 127.0.0.1."""
    constants = load_ray()._private.ray_constants
    known = hasattr(constants, "ENABLE_RAY_CLUSTER")
    return replaced(constants, "ENABLE_RAY_CLUSTER", False) if known else nullcontext()


def _node_awaited() -> AbstractContextManager[None]:
    """Ray asks for its node once a second, from below Python, until that is there: ask for it oftener first, so that it
    need ask once only. That saves half a second (Ray 2.60); a Ray that does not ask so is left alone."""
    state: Any = load_ray()._private.state.GlobalState
    ask: Any = getattr(state, "get_node", None)

    def await_and_ask(self: Any, node_id: str) -> Any:
        end = time.monotonic() + _NODE_SECONDS
        with suppress(Exception):
            while time.monotonic() < end and all(node["NodeID"] != node_id for node in self.node_table()):
                time.sleep(_POLL_SECONDS)
        return ask(self, node_id)

    return nullcontext() if ask is None else replaced(state, "get_node", await_and_ask)


_is_starting = False


@contextmanager
def _apart() -> Iterator[None]:
    """Give each process of a local Ray a process group of its own, so that a signal to that of the driver (`timeout`, a
    batch system) ends the driver alone: without its raylet it could not even write what it has. Ray leaves such hooks
    in force, for it runs code between fork and exec itself."""
    global _is_starting
    _hooked()
    _is_starting = True
    try:
        yield
    finally:
        _is_starting = False


def _leave_group() -> None:
    if _is_starting:
        os.setpgid(0, 0)


@cache
def _hooked() -> None:
    """Have `_leave_group` called in each child, once and for all: Python has no way to take that back."""
    os.register_at_fork(after_in_child=_leave_group)
