"""How long the sources of a net are, and what that means for the records that a run pairs, repeats or leaves out.

Each source begins again at its end, as in Caffe.  Two of unequal length then pair image 1 with label 16, and no score
tells; a run over more than the data counts some records twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.data import Source
from distcalib.errors import DataError, OptionError


@dataclass(frozen=True)
class Length:
    """`what`, a layer or the array of a top, has `n_records`, of which an iteration takes `n_taken`."""

    what: str
    n_records: int
    n_taken: int

    @property
    def n_iterations(self) -> int:
        """How many read each record once at the most, and as many as that allows; at least 1."""
        return max(1, self.n_records // self.n_taken)

    def reaches(self, n_iterations: int) -> bool:
        """Whether it lasts so many iterations without beginning again."""
        return n_iterations * self.n_taken <= self.n_records


def lengths_of(
    named: Sequence[tuple[str, Source]], arrays: Mapping[str, NDArray[np.generic]] | None
) -> tuple[Length, ...]:
    """Those of the sources, by the name of their layer, that have one.

    An array of just one iteration is a constant, such as the size of an image: it goes with any other.
    """
    lengths = []
    for name, source in named:
        if source.index is not None:
            lengths.append(Length(f"layer '{name}'", source.index.n_records, source.batch_size))
            continue
        for top in source.tops if arrays else ():
            n_rows, n_taken = len((arrays or {}).get(top, ())), source.shapes[top][0]
            if top in (arrays or {}) and n_rows != n_taken:
                lengths.append(Length(f"the array of top '{top}'", n_rows, n_taken))
    return tuple(lengths)


def whole_iterations(
    lengths: Sequence[Length],
    named: Sequence[tuple[str, Source]],
    arrays: Mapping[str, NDArray[np.generic]] | None,
    where: str,
) -> int:
    """The iterations of a run over the whole of the data.  Rounded down: no record counts twice, and `length_warnings`
    says how many are left; where sources differ in length, the shortest ends it.

    Raises OptionError where no source has an end.
    """
    if lengths:
        return min(one.n_iterations for one in lengths)
    if any(top in (arrays or {}) for _, source in named for top in source.tops):
        return 1  # each of the arrays is of one iteration
    names = ", ".join(f"'{name}'" for name, _ in named)
    said = f"layer {names} does not tell how many records it has"
    if len(named) > 1:
        said = f"layers {names} do not tell how many records they have"
    raise OptionError(f"{where}: {said}; give -i, the number of iterations")


def refuse_unequal(lengths: Sequence[Length], n_iterations: int, where: str) -> None:
    """Raise DataError where one source begins again before the others do, within `n_iterations`."""
    if not _differ(lengths) or all(one.reaches(n_iterations) for one in lengths):
        return
    raise DataError(
        f"{where}: {_listed(lengths)}: different numbers of records, so that {n_iterations} iterations would pair "
        "records that do not belong together; give sources of one length, or fewer iterations (-i)"
    )


def length_warnings(lengths: Sequence[Length], n_iterations: int, where: str) -> Iterator[str]:
    """How many records are counted more than once, or never looked at."""
    if _differ(lengths):
        yield f"{where}: {_listed(lengths)}: different numbers of records; see that they belong together"
    for length in lengths[:1]:
        n_read = n_iterations * length.n_taken
        counts = f"(-i {n_iterations} x batch {length.n_taken} = {n_read:,} of {length.n_records:,})"
        if n_read < length.n_records:
            n_left = length.n_records - n_read
            advice = _advice(length) if n_left < length.n_taken else ""
            yield f"{where}: {length.what}: {_records(n_left)} never looked at {counts}{advice}"
        elif n_read > length.n_records:
            n_again = min(length.n_records, n_read - length.n_records)
            yield f"{where}: {length.what}: {_records(n_again)} counted more than once {counts}"


def _advice(one: Length) -> str:
    """The batch size nearest to what it is that leaves no record; "" if only a far smaller one would."""
    sizes = range(one.n_taken, one.n_taken // 4, -1)
    batch_size = next((size for size in sizes if one.n_records % size == 0), None)
    return "" if batch_size is None else f"; batch_size {batch_size} reads each once"


def _records(n: int) -> str:
    return f"{n:,} records are" if n != 1 else "1 record is"


def _differ(lengths: Sequence[Length]) -> bool:
    """Whether they last different numbers of iterations."""
    return any(one.n_records * lengths[0].n_taken != lengths[0].n_records * one.n_taken for one in lengths)


def _listed(lengths: Sequence[Length]) -> str:
    return ", ".join(f"{one.what} has {one.n_records:,}" for one in lengths)
