"""The tiny net, made once for the tests of a module."""

import pytest

from tests.run.tiny import Tiny, make_tiny
from tests.run.tiny_ssd import TinySsd, make_tiny_ssd
from tests.run.tiny_yolo import make_tiny_yolo


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A net that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_ssd(tmp_path_factory: pytest.TempPathFactory) -> TinySsd:
    """A detection net that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    return make_tiny_ssd(tmp_path_factory.mktemp("tiny_ssd"))


@pytest.fixture(scope="module")
def tiny_yolo(tmp_path_factory: pytest.TempPathFactory) -> TinySsd:
    """A YOLO v2 that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    return make_tiny_yolo(tmp_path_factory.mktemp("tiny_yolo"))
