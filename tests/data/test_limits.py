"""The limit on what small files may become."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from distcalib import CalibrationOptions, EvaluationOptions, calibrate, evaluate
from distcalib.data.limits import VARIABLE, limited, over_limit
from distcalib.errors import DataError, OptionError
from tests.session.tiny import make_tiny

MB = 2**20


def test_limited_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with limited(3):
        assert over_limit(3 * MB) is None
        assert over_limit(3 * MB + 1) == "4 MB unpacked, and 3 MB are the limit (--largest-mb)"
        with limited(None):
            assert over_limit(4 * MB) is not None
    assert over_limit(4 * MB) is None
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("options", [CalibrationOptions, EvaluationOptions])
def test_options_refuse_a_limit_of_nothing(options: type[CalibrationOptions] | type[EvaluationOptions]) -> None:
    with pytest.raises(OptionError, match="--largest-mb 0: must be at least 1; leave it out for 1024"):
        options(largest_mb=0)


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_options_limit_what_is_decoded(tmp_path: Path, command: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((600, 600, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png 0\n")
    tiny = make_tiny(tmp_path)
    text = tiny.prototxt.read_text().replace('type: "Data"', 'type: "ImageData"')
    text = text.replace("data_param", "image_data_param").replace(str(tiny.database), "list.txt")
    tiny.prototxt.write_text(text.replace(" backend: LMDB", ""))
    with pytest.raises(DataError, match=r"2 MB unpacked, and 1 MB are the limit"):
        if command == "calibrate":
            calibrate(tiny.prototxt, tiny.weights, CalibrationOptions(largest_mb=1, out=tmp_path))
        else:
            evaluate(tiny.prototxt, tiny.weights, EvaluationOptions(largest_mb=1))
