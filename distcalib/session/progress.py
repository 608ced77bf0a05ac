"""How a run tells what it does; the command line draws it, the API is silent unless it is given one."""

from typing import Protocol


class Reporter(Protocol):
    """Receives the phases of a run and their progress."""

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """A phase of `n_iterations` batches begins; the one before it has ended."""
        ...

    def advance(self, n_done: int, n_total: int) -> None:
        """So many iterations of the phase are done, of what it turned out to need."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Says nothing."""

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """Ignore it."""

    def advance(self, n_done: int, n_total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
