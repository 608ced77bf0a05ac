import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scripts.faults import chaos
from scripts.faults.chaos import (
    ACTOR,
    DRIVER,
    NODE,
    ONE_OF_TWO,
    VICTIMS,
    Trial,
    Usual,
    end_session,
    in_time,
    processes,
    table,
)

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


def test_a_trial_that_killed_nothing_is_made_again_with_an_earlier_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []

    def late_twice(number: int, *_: object, share: float) -> Trial:
        shares.append(share)
        return replace(WELL, number=number, killed=len(shares) == 3)

    monkeypatch.setattr(chaos, "trial", late_twice)
    made = in_time(4, tmp_path, Usual((b"", {}), 1.0, {DRIVER: 1.0}), None, seed=1)
    assert made == replace(WELL, number=4)
    assert shares == [1, 1 / 2, 1 / 3]


def test_a_trial_that_is_not_well_stands_though_it_killed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(WELL, killed=False, same=False)
    monkeypatch.setattr(chaos, "trial", lambda *_, **__: bad)
    assert in_time(0, tmp_path, Usual((b"", {}), 1.0, {DRIVER: 1.0}), None, seed=1) == bad


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
