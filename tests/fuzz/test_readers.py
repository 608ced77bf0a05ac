"""Mutated files: whatever they hold, a reader succeeds or raises an error of ours.

Hypothesis draws the edits, and makes what it finds small; 100,000 inputs in all, divided by what a reader is worth.
scripts/faults/fuzz.py does the same a million times without it, each reader in processes of its own."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import KINDS, edited
from tests.fuzz.readers import READERS, outcome, shares

N_INPUTS = 100_000
EDITS = st.lists(
    st.tuples(st.integers(0, KINDS - 1), st.integers(0, 2**16 - 1), st.integers(0, 255)), min_size=1, max_size=6
)


@pytest.mark.parametrize("name", list(READERS))
def test_readers_read_what_is_good(name: str, tmp_path: Path) -> None:
    seeds = READERS[name].seeds(tmp_path)
    assert len(seeds) > 0
    assert [outcome(READERS[name].read, seed, tmp_path) for seed in seeds] == ["read"] * len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(READERS))
def test_readers_raise_nothing_but_errors_of_ours(name: str, tmp_path: Path) -> None:
    seeds = READERS[name].seeds(tmp_path)
    seen: set[str] = set()

    @settings(
        max_examples=shares(N_INPUTS)[name],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(seeds) - 1), EDITS)
    def mutate(number: int, edits: list[tuple[int, int, int]]) -> None:
        seen.add(outcome(READERS[name].read, edited(seeds[number], edits, seeds[-1]), tmp_path))

    mutate()
    assert seen <= {"read", "refused"}
    assert "refused" in seen or name == "label map", "the edits change nothing"


def test_shares_are_all_of_the_inputs() -> None:
    assert sum(shares(N_INPUTS).values()) >= N_INPUTS
