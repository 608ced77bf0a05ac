"""Which digits train and which test, for the makers of the examples; NumPy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def split_by_label(labels: npt.NDArray[np.int64], n_test: int, seed: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Indices of labels (N,) that train and that test: disjoint, with equal shares of every label, ordered by label."""
    # Ordered by digit, then every second one: a stratified half; the rest makes the test set n_test.
    order = np.random.default_rng(seed).permutation(len(labels))
    by_digit = order[np.argsort(labels[order], kind="stable")]
    test = np.concatenate([by_digit[::2], by_digit[1::2]])[:n_test]
    return np.setdiff1d(by_digit, test), test
