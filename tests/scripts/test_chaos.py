import pytest

from scripts import chaos
from scripts.chaos import Trial, table


def test_table_counts_by_what_was_killed() -> None:
    trials = [
        Trial("driver", killed=True, resumed=True, same=True, seconds=3.0, n_again=0),
        Trial("driver", killed=False, resumed=False, same=False, seconds=9.0, n_again=0),
        Trial("actor", killed=True, resumed=False, same=True, seconds=1.0, n_again=2),
    ]
    driver, actor = table(trials).splitlines()[2:]
    assert driver == "| driver | 2 | 1 | 1 | 1 | 3.0 | 0 |"
    assert actor == "| actor | 1 | 1 | 0 | 1 | 1.0 | 2 |"


@pytest.mark.slow
def test_chaos_ends_with_the_reference_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["chaos.py", "--runs", "10", "--seed", "7"])
    assert chaos.main() == 0
