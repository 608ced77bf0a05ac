"""Trials of starting a local Ray, with one that does not start."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import ray

from distcalib.actors import local_ray as local
from distcalib.actors.local_ray import PrivateRay
from distcalib.actors.ray_module import load_ray
from distcalib.errors import MeasureError


def test_private_ray_tries_twice_with_a_token_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path) if len(str(tmp_path)) < 25 else "/tmp")
    tokens: list[str] = []

    def fail(**_: object) -> None:
        tokens.append(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text())
        os.write(2, b"pages of a stack\n")
        raise RuntimeError("no raylet")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(
        MeasureError, match=r"^Ray did not start on this machine, twice: .*; its logs are in "
    ) as failed:
        PrivateRay(1)
    assert len(set(tokens)) == 2
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    logs = Path(str(failed.value).rpartition(" ")[2])
    assert (logs / "driver.err").read_text() == "pages of a stack\n"
    assert not (logs / "distcalib-token").exists()
    shutil.rmtree(logs)


def test_private_ray_says_which_program_could_not_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path) if len(str(tmp_path)) < 25 else "/tmp")
    monkeypatch.setattr(local, "start_lacks", lambda *_, **__: [])

    def fail(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/opt/python3")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(
        MeasureError, match=r"twice: Permission denied \(/opt/python3\); see to that; its logs"
    ) as failed:
        PrivateRay(1)
    shutil.rmtree(str(failed.value).rpartition(" ")[2])


def test_node_is_asked_for_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_ray()._private.state.GlobalState
    tables = iter([[], [{"NodeID": "another"}], [{"NodeID": "ours"}]])
    asked: list[list[object]] = []

    def get_node(self: object, node_id: str) -> str:
        asked.append(list(tables))
        return f"node {node_id}"

    monkeypatch.setattr(state, "node_table", lambda self: next(tables))
    monkeypatch.setattr(state, "get_node", get_node, raising=False)
    with local._node_awaited():
        assert state().get_node("ours") == "node ours"
    assert asked == [[]], "all tables were looked at before"
    assert state.get_node is get_node, "Ray's own is back"


def test_node_is_asked_for_where_its_table_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("GCS is gone")

    state = load_ray()._private.state.GlobalState
    monkeypatch.setattr(state, "node_table", refuse)
    monkeypatch.setattr(state, "get_node", lambda self, node_id: node_id, raising=False)
    with local._node_awaited():
        assert state().get_node("ours") == "ours"
