"""The processes of a local Ray that a run does without."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest

from distcalib.actors import idle_agent, ray_helpers
from distcalib.actors.ray_helpers import idle_command, no_helpers
from distcalib.actors.ray_module import load_ray
from tests.every import every


def test_agents_of_a_raylet_are_idle_and_all_else_of_its_command_stays() -> None:
    command = ["raylet", "--dashboard_agent_command=python agent.py -x", "--head", "--runtime_env_agent_command=p m.py"]
    idle = f"{sys.executable} -I -S {idle_agent.__file__}"
    expected = ["raylet", f"--dashboard_agent_command={idle}", "--head", f"--runtime_env_agent_command={idle}"]
    assert idle_command(command) == expected
    assert idle_command(["gcs_server", "--port=0"]) == ["gcs_server", "--port=0"]


def test_an_interpreter_in_a_folder_with_a_space_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my venv/python")
    assert idle_command(["--dashboard_agent_command=x"])[0].startswith("--dashboard_agent_command='/my venv/python' -I")


def test_an_idle_agent_lives_as_long_as_its_raylet() -> None:
    program = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, {idle_agent.__file__!r}]).pid, flush=True)"
    )
    raylet = subprocess.Popen(
        [sys.executable, "-c", f"{program}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert raylet.stdout is not None
    agent = psutil.Process(int(raylet.stdout.readline()))
    time.sleep(3 * idle_agent._POLL_SECONDS)
    assert agent.status() != psutil.STATUS_ZOMBIE, "its raylet is there"
    raylet.communicate()
    with suppress(psutil.NoSuchProcess):
        agent.wait(20)


def test_an_idle_agent_whose_raylet_was_gone_before_it_began_ends() -> None:
    env = os.environ | {"RAY_RAYLET_PID": str(2**30)}
    assert subprocess.run([sys.executable, "-I", "-S", idle_agent.__file__], env=env, timeout=20).returncode == 0


def test_all_of_ray_is_as_before_afterwards() -> None:
    ray = load_ray()
    node, services = ray._private.node.Node, ray._private.services
    names = [(node, name) for name in ("start_monitor", "start_log_monitor", "start_raylet")]
    names += [(services, name) for name in ("start_api_server", "start_ray_process")]
    before = [getattr(owner, name) for owner, name in names]
    with no_helpers():
        assert services.start_api_server(False, raise_on_failure=False) == (None, None)
        assert every(getattr(owner, name) is not old for (owner, name), old in zip(names, before, strict=True))
    assert [getattr(owner, name) for owner, name in names] == before


def test_a_ray_that_tells_its_ports_in_another_way_keeps_its_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    node = type("Node", (), {"start_raylet": "its own"})
    services = SimpleNamespace(start_api_server=None, start_ray_process="its own")
    modules = {
        "ray._private.node": SimpleNamespace(Node=node),
        "ray._private.services": services,
        "ray._raylet": SimpleNamespace(persist_port=None),
    }
    monkeypatch.setattr(ray_helpers, "import_module", modules.__getitem__)
    with no_helpers():
        assert (node.start_raylet, services.start_ray_process) == ("its own", "its own")  # type: ignore[attr-defined]
