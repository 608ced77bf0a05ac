"""Ctrl-C while something must not be interrupted."""

import signal
import threading

import pytest

from distcalib.measure.interrupts import interrupt_held


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
