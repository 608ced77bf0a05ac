import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scripts.faults import chaos
from scripts.faults.chaos import ACTOR, DRIVER, NODE, ONE_OF_TWO, VICTIMS, Trial, end_session, processes, table

WELL = Trial(0, DRIVER, killed=True, resumed=True, same=True, told=True, left=False, seconds=3.0, n_again=0)


def test_table_counts_by_what_was_killed() -> None:
    trials = [
        WELL,
        replace(WELL, killed=False, resumed=False, same=False, seconds=9.0),
        replace(WELL, victim=ACTOR, resumed=False, seconds=1.0, n_again=2),
    ]
    driver, actor, node, one_of_two = table(trials).splitlines()[2:]
    assert driver == "| driver | 2 | 1 | 1 | 1 | 3.0 | 0 |"
    assert actor == "| actor | 1 | 1 | 0 | 1 | 1.0 | 2 |"
    assert node == f"| {NODE} | 0 | 0 | 0 | 0 | 0.0 | 0 |"
    assert one_of_two == f"| {ONE_OF_TWO} | 0 | 0 | 0 | 0 | 0.0 | 0 |"


@pytest.mark.parametrize("flaw", [{"same": False}, {"told": False}, {"left": True}], ids=str)
def test_main_fails_for_a_trial_that_is_not_well(
    flaw: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr("sys.argv", ["chaos.py", "--runs", "0", "--log", str(log)])
    monkeypatch.setattr(chaos, "undisturbed", lambda *_: None)
    log.write_text(json.dumps(asdict(WELL)) + "\n")
    assert chaos.main() == 0
    with log.open("a") as file:
        file.write(json.dumps({**asdict(WELL), **flaw}) + "\n")
    assert chaos.main() == 1


def test_processes_finds_by_session_and_program() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    try:
        assert processes(process.pid, "python") == [process.pid]
        assert processes(process.pid, "raylet") == []
        assert process.pid not in processes(1, "python")
    finally:
        end_session(process.pid)
        process.stdin.close()
    assert process.wait() == -9
    assert processes(process.pid, "") == []


@pytest.mark.slow
def test_chaos_ends_with_the_reference_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr("sys.argv", ["chaos.py", "--runs", "10", "--seed", "7", "--log", str(log)])
    assert chaos.main() == 0
    trials = [Trial(**json.loads(line)) for line in log.read_text().splitlines()]
    assert {one.victim for one in trials if one.killed} == set(VICTIMS)
