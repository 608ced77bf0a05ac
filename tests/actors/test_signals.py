"""Ctrl-C while something must not be interrupted, and SIGTERM."""

import signal
import threading
from collections.abc import Iterator

import pytest

from distcalib.actors.signals import ended_by, interrupt_held, termination_kept, termination_told

pytestmark = pytest.mark.before_ray


def test_interrupt_held_comes_at_the_end_of_the_block() -> None:
    reached = False
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupt_held():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_held_lets_the_second_through() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupt_held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert not reached


def test_interrupt_held_changes_nothing_when_none_comes() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupt_held():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_held_does_nothing_in_another_thread() -> None:
    found: list[object] = []

    def inside() -> None:
        with interrupt_held():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_told_is_a_keyboard_interrupt_once(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)  # as in a process that has not had a Ray yet
    reached = False
    with termination_told():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert ended_by() == number
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        reached = True
    assert reached
    assert ended_by() == number, "it was the first"
    assert signal.getsignal(number) is signal.SIG_DFL
    with termination_told():
        assert ended_by() == signal.SIGINT


def test_termination_told_leaves_ignored_signals_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_told():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_termination_told_leaves_ctrl_c_as_it_is() -> None:
    with termination_told():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert ended_by() == signal.SIGINT


def test_termination_told_leaves_another_handler_alone(handler: list[int]) -> None:
    with termination_told():
        signal.raise_signal(signal.SIGTERM)
    assert handler == [signal.SIGTERM]


@pytest.fixture
def handler() -> Iterator[list[int]]:
    """What a handler of SIGTERM was called with."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_process(*_: object) -> None:
    """Ray's handler."""
    raise SystemExit(15)


def test_termination_kept_brings_the_handler_back(handler: list[int]) -> None:
    with termination_kept():
        signal.signal(signal.SIGTERM, end_process)
    signal.raise_signal(signal.SIGTERM)
    assert handler == [signal.SIGTERM]


def test_termination_kept_hands_on_what_came_meanwhile(handler: list[int]) -> None:
    with pytest.raises(SystemExit), termination_kept():
        signal.signal(signal.SIGTERM, end_process)
        signal.raise_signal(signal.SIGTERM)
    assert handler == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_kept_holds_back_what_comes_until_the_block_has_ended(number: signal.Signals) -> None:
    with termination_told(), pytest.raises(KeyboardInterrupt):
        with termination_kept():
            signal.raise_signal(number)
            signal.raise_signal(number)
            is_whole = True
        pytest.fail("it takes effect at the end of the block")
    assert is_whole
    assert ended_by() == number


def test_termination_kept_leaves_it_to_ray_where_nobody_handles_it() -> None:
    try:
        with termination_kept():
            signal.signal(signal.SIGTERM, end_process)
        assert signal.getsignal(signal.SIGTERM) is end_process
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
