"""Fixtures that all tests share.

The recorded answers of Intel Caffe are too large for the repository, so a test that needs them skips where they
are absent. It fails instead where DISTCALIB_GOLDEN says that they are there, as .ci/run does: skipping would make a
run green that has checked nothing.
"""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distcalib  # noqa: F401  before any test imports openvino, whose telemetry it turns off
from distcalib.errors import flags_named

if TYPE_CHECKING:  # what the fixtures import costs seconds, which most tests need not wait for
    from tests.actors.forked import ForkServer
    from tests.session.tiny import Tiny
    from tests.session.tiny_ssd import TinySsd

ROOT = Path(__file__).resolve().parent.parent
_ON_RAY = "--on-ray"
_SHARES_RAY = pytest.StashKey[bool]()
_STDERR = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-slow` gives it."""
    parser.addoption(_ON_RAY, action="store_true", help="the actors of the fixture `actors` are Ray's, not forked ones")


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGINT even where whoever started the tests ignores it (nohup, a job in a script's background).

    The programs that tests start inherit that, and those that are interrupted would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    stack = ExitStack()
    stack.enter_context(flags_named())  # messages as they are written; what Python's users read of them: test_errors.py
    config.add_cleanup(stack.close)
    config.stash[_STDERR] = os.dup(2)  # the one that is not captured


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take crashes back from Ray: it writes of them where a process that captures its stderr loses them."""
    if "ray" in sys.modules:
        faulthandler.disable()  # or it would take itself for enabled
        faulthandler.enable(item.config.stash[_STDERR])


def _shares_ray(item: pytest.Item) -> bool:
    """Whether a test of the item's file uses `one_ray`; the answer is noted when tests are collected."""
    return item.stash.get(_SHARES_RAY, False)


def _uses(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())


def pytest_itemcollected(item: pytest.Item) -> None:
    """So that -m can tell the tests that --on-ray changes."""
    if _uses(item, "actors"):
        item.add_marker(pytest.mark.actors)


@pytest.hookimpl(trylast=True)  # of what -m and -k leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files whose tests share a Ray in front: one serves them all, and what takes longest is begun first. Files
    marked `before_ray` come before them: where Ray's own handlers were, signals that tests raise have crashed."""
    forking = {item.path for item in items if _uses(item, "actors")}
    sharing = {item.path for item in items if _uses(item, "one_ray")}
    if mixed := forking & sharing:
        raise pytest.UsageError(f"{', '.join(map(str, mixed))}: uses both `actors` and `one_ray`; part the file")
    if config.getoption(_ON_RAY):
        sharing |= forking
    for item in items:
        item.stash[_SHARES_RAY] = item.path in sharing
    items.sort(key=lambda item: (item.get_closest_marker("before_ray") is None, not _shares_ray(item)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End the shared Ray before a file whose tests do not know it: some of them start one as a user's command does."""
    try:
        yield
    finally:
        if _shares_ray(item) and (nextitem is None or not _shares_ray(nextitem)):
            import ray

            ray.shutdown()


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
    """A Ray that all pools find running, those of the next files too: starting and ending it costs seconds."""
    import ray  # the tests that need no actors should not wait for it

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    assert ray.is_initialized(), "a pool ended a Ray that was not its own"


@pytest.fixture(scope="session")
def fork_server() -> "Iterator[ForkServer]":
    """What actors are forked from that are none of Ray's."""
    from tests.actors.forked import ForkServer

    with ForkServer() as server:
        yield server


@pytest.fixture(scope="module")
def actors(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tests of what actors do, not of Ray: sessions fork them, in a twentieth of the time; --on-ray: `one_ray`.

    All tests of a file see the same, so a file that uses it has no use for `one_ray`.
    """
    if request.config.getoption(_ON_RAY):
        request.getfixturevalue("one_ray")
        yield
        return
    from tests.actors.forked import forking

    with forking(request.getfixturevalue("fork_server")):
        yield


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
