"""How long a search may go on: --max-candidates and --max-time."""

import time

from distcalib.calibration.options import CalibrationOptions


class BudgetSpent(Exception):
    """The search may not measure any more; the text is the flag that says so."""


class Budget:
    """That of all that is searched from now on: new weights and layers in FP32."""

    def __init__(self, options: CalibrationOptions) -> None:
        self._n_candidates, self._seconds = options.max_candidates, options.max_time
        self._begin = time.perf_counter()

    @property
    def is_spent(self) -> bool:
        """Whether the time is over."""
        return self._seconds is not None and time.perf_counter() - self._begin >= self._seconds

    def check(self, n_answered: int) -> None:
        """Raise BudgetSpent; at least the all-INT8 candidate is always measured."""
        if not n_answered:
            return
        if self._n_candidates is not None and n_answered >= self._n_candidates:
            raise BudgetSpent(f"--max-candidates {self._n_candidates}")
        if self.is_spent:
            raise BudgetSpent(f"--max-time {self._seconds:g}")
