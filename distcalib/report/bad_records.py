"""--skip-bad-records: which records were left out, as data and as a sentence."""

from collections.abc import Iterable
from dataclasses import dataclass

from distcalib.data import LeftOut
from distcalib.errors import shortened

MOST_LISTED = 100
_MOST_TOLD = 3


@dataclass(frozen=True)
class BadRecords:
    """How many of the records that were read are bad, and the first of them in the order of layers and data."""

    count: int
    n_records: int
    listed: tuple[LeftOut, ...]

    @property
    def line(self) -> str:
        """One line for the end of a run."""
        shown = ", ".join(f"{one.key} {one.reason}" for one in self.listed[:_MOST_TOLD])
        more = self.count - min(self.count, _MOST_TOLD)
        others = f" and {more:,} more" if more else ""
        was = "was" if self.count == 1 else "were"
        return shortened(
            f"{self.count:,} of {self.n_records:,} records could not be read and {was} left out: {shown}{others}"
        )


def bad_records(found: Iterable[LeftOut], n_records: int) -> BadRecords:
    """Those `found`, each once, of `n_records`."""
    ordered = sorted(set(found))
    return BadRecords(len(ordered), n_records, tuple(ordered[:MOST_LISTED]))
