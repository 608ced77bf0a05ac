"""Fixtures that all tests share.

The recorded answers of Intel Caffe are too large for the repository, so a test that needs them skips where they
are absent. It fails instead where DISTCALIB_GOLDEN says that they are there, as .ci/run does: skipping would make a
run green that has checked nothing.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distcalib  # noqa: F401  before any test imports openvino, whose telemetry it turns off
from distcalib.errors import flags_named

if TYPE_CHECKING:  # what the fixtures import costs seconds, which most tests need not wait for
    from tests.session.tiny import Tiny
    from tests.session.tiny_ssd import TinySsd

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGINT even where whoever started the tests ignores it (nohup, a job in a script's background).

    The programs that tests start inherit that, and those that are interrupted would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    stack = ExitStack()
    stack.enter_context(flags_named())  # messages as they are written; what Python's users read of them: test_errors.py
    config.add_cleanup(stack.close)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder that holds golden/, golden_ssd/ and cifar10/: DISTCALIB_GOLDEN, or ../shared beside the repository."""
    folder = Path(os.environ.get("DISTCALIB_GOLDEN") or ROOT.parent / "shared")
    if not (folder / "golden").is_dir():
        reason = f"{folder}: no recorded answers of Intel Caffe; set DISTCALIB_GOLDEN to the folder that holds golden/"
        if os.environ.get("DISTCALIB_GOLDEN"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A Ray that all pools of a module find running: starting it costs seconds."""
    import ray  # the tests that need no actors should not wait for it

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    assert ray.is_initialized(), "a pool ended a Ray that was not its own"
    ray.shutdown()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    """A net that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    from tests.session.tiny import make_tiny

    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_ssd(tmp_path_factory: pytest.TempPathFactory) -> "TinySsd":
    """A detection net that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    from tests.session.tiny_ssd import make_tiny_ssd

    return make_tiny_ssd(tmp_path_factory.mktemp("tiny_ssd"))


@pytest.fixture(scope="module")
def tiny_yolo(tmp_path_factory: pytest.TempPathFactory) -> "TinySsd":
    """A YOLO v2 that loses in INT8 until conv3 is back in FP32. Its folder is shared: write elsewhere."""
    from tests.session.tiny_yolo import make_tiny_yolo

    return make_tiny_yolo(tmp_path_factory.mktemp("tiny_yolo"))
