"""The yardstick for converters: a right file is right, a wrong one is not, and none is none."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
from scripts.bench.compare_converters import OWN, answers, cases, convert, is_right


def test_is_right_tells_a_right_file_from_a_wrong_one(tmp_path: Path) -> None:
    case = next(case for case in cases([]) if case.name == "resnet")
    x = np.random.default_rng(0).normal(size=case.shape).astype(np.float32)
    expected = answers(case, x)
    made = convert(OWN, case, tmp_path)
    assert made is not None
    assert is_right(made, x, expected)
    assert not is_right(made, x, {name: values * np.float32(1.001) for name, values in expected.items()})
    assert not is_right(made, x, {**expected, "another": x})


@pytest.mark.parametrize("command", ["false", "no-such-converter {prototxt}", "true"])
def test_convert_makes_nothing_where_a_converter_fails(command: str, tmp_path: Path) -> None:
    assert convert(command, next(cases([])), tmp_path) is None
