"""How a run reports what it does. The command line draws it; a user of Python who gives no reporter finds it in the
logger `distcalib`: notes and phases as INFO, progress as DEBUG, what the actors suffer as WARNING.
"""

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

_LOG = logging.getLogger("distcalib")


class Reporter(Protocol):
    """Receives the phases of a run and their progress; with the methods of Watcher, more than that."""

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """A phase of `n_iterations` batches begins; the one before it has ended."""
        ...

    def advance(self, n_done: int, n_total: int) -> None:
        """So many iterations of the phase are done, of what it turned out to need."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


@dataclass(frozen=True)
class Decided:
    """A candidate of a search has its verdict: with `n_fp32` layers in FP32 it `meets` the tolerance or not."""

    n_fp32: int
    meets: bool


@runtime_checkable
class Watcher(Protocol):
    """What a Reporter may do too, to show more: who has these methods is told more."""

    def busy(self, n_busy: int, n_actors: int) -> None:
        """So many of the actors have work now."""
        ...

    def decided(self, verdict: Decided) -> None:
        """The search knows of a candidate whether it meets the tolerance."""
        ...


class Silent:
    """Says nothing."""

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """Ignore it."""

    def advance(self, n_done: int, n_total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


class Logged:
    """Logs it."""

    def __init__(self) -> None:
        self._name = ""

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """As INFO."""
        self._name = name
        _LOG.info("%s: %d iterations of %d images", name, n_iterations, batch)

    def advance(self, n_done: int, n_total: int) -> None:
        """As DEBUG."""
        _LOG.debug("%s: %d/%d iterations", self._name, n_done, n_total)

    def note(self, text: str) -> None:
        """As INFO."""
        _LOG.info("%s", text)
