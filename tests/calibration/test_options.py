"""Options from Python: converted or refused, never taken for something else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import OptionError


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("out", "somewhere", Path("somewhere")),
        ("data", Path("x.npz"), Path("x.npz")),
        ("iterations", np.int64(3), 3),
        ("accuracy_loss", 0, 0.0),
        ("max_time", np.float32(2), 2.0),
        ("keep_fp32", ["conv1", "fc*"], ("conv1", "fc*")),
        ("n_actors", None, None),
        ("pareto", np.True_, True),
    ],
)
def test_options_are_converted_where_nothing_is_lost(name: str, given: object, value: object) -> None:
    asked: dict[str, Any] = {name: given}
    found = getattr(CalibrationOptions(**asked), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("iterations", 2.5, "iterations=2.5: must be a whole number"),
        ("iterations", True, "iterations=True: must be a whole number"),
        ("iterations", "10", "iterations='10': must be a whole number"),
        ("sampling_iterations", None, "sampling_iterations=None: must be a whole number"),
        ("accuracy_loss", "1%", "accuracy_loss='1%': must be a number"),
        ("keep_fp32", "conv1", r"keep_fp32='conv1': must be a list of names, such as \['conv1'\]"),
        ("keep_int8", [1], r"keep_int8=\[1\]: must be a list of names"),
        ("pareto", 1, "pareto=1: must be True or False"),
        ("out", 3, "out=3: must be a path"),
        ("blob_name", b"top1", "blob_name=b'top1': must be a text"),
        ("n_actors", -3, "--actors -3: must be at least 1; leave it out to use every core"),
        ("cores_per_actor", 0, "--cores-per-actor 0: must be at least 1; or leave it out"),
    ],
)
def test_options_of_another_kind_are_refused(name: str, given: object, says: str) -> None:
    asked: dict[str, Any] = {name: given}
    with pytest.raises(OptionError, match=f"^{says}"):
        CalibrationOptions(**asked)


def test_options_that_do_not_fit_are_named_all_at_once() -> None:
    asked: dict[str, Any] = {"iterations": 2.5, "out": 3}
    with pytest.raises(OptionError, match=r"^iterations=2\.5: must be a whole number; out=3: must be a path$"):
        CalibrationOptions(**asked)
