"""A local Ray without what it only has for clouds, for dashboards, for showing logs and for installing packages.

Its autoscaler, its log monitor and two agents of its raylet are Python interpreters that load Ray while the actors'
machine is busy with starting; the raylet takes no actor until its agents have told their ports, and the autoscaler
waits a second before it heeds Ray's shutdown. On two cores a run begins 0.8 s earlier and ends 1.0 s earlier without
the first two, and begins 0.45 s earlier without the work of the agents (Ray 2.60, `python
scripts/bench/bench_start.py`). Nothing that Ray offers leaves them out; nothing asks for them again: no actor of a
local Ray has a runtime environment of its own.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from distcalib.actors import idle_agent

_PORTS = {  # what a raylet (2.60) waits for: the constant that names it, and the port, -1 for none, as Ray itself does
    "METRICS_AGENT_PORT_NAME": -1,
    "METRICS_EXPORT_PORT_NAME": -1,
    "DASHBOARD_AGENT_LISTEN_PORT_NAME": -1,
    "RUNTIME_ENV_AGENT_PORT_NAME": 1,  # must be one, and is never called; nobody listens there
}
_COMMANDS = ("--dashboard_agent_command=", "--runtime_env_agent_command=")


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Ray's own `name` of `owner` is `value` inside the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def no_helpers() -> Iterator[None]:
    """A Ray that is started inside the block, by this process, has none of them; one that has other helpers, or other
    ways to start them, keeps what it has."""
    node, services = import_module("ray._private.node").Node, import_module("ray._private.services")
    with ExitStack() as stack:
        for name in ("start_monitor", "start_log_monitor"):
            if hasattr(node, name):
                stack.enter_context(replaced(node, name, lambda _: None))
        # The server of dashboard and jobs is waited for even where there is to be no dashboard, half a second; Ray goes
        # on without it as where it fails.
        stack.enter_context(replaced(services, "start_api_server", lambda *_, **__: (None, None)))
        if has_idle_agents():
            stack.enter_context(_idle_agents(node, services, import_module("ray._raylet")))
        yield


def has_idle_agents() -> bool:
    """Whether this Ray's raylet can be told the ports of agents that do nothing."""
    raylet = import_module("ray._raylet")
    return all(hasattr(raylet, name) for name in ("persist_port", *_PORTS))


@contextmanager
def _idle_agents(node: Any, services: Any, raylet: Any) -> Iterator[None]:
    start_raylet, start_process = node.start_raylet, services.start_ray_process

    def with_ports(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name, port in _PORTS.items():
            raylet.persist_port(self.get_session_dir_path(), self.node_id, getattr(raylet, name), port)
        return start_raylet(self, *args, **kwargs)

    def with_idle_agents(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        return start_process(idle_command(command), *args, **kwargs)

    with replaced(node, "start_raylet", with_ports), replaced(services, "start_ray_process", with_idle_agents):
        yield


def idle_command(command: Sequence[str]) -> list[str]:
    """The command that starts a raylet, with agents that do nothing; any other as it is."""
    idle = shlex.join([sys.executable, "-I", "-S", idle_agent.__file__])
    return [next((f"{name}{idle}" for name in _COMMANDS if part.startswith(name)), part) for part in command]
