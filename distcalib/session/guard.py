"""Whether a run still measures what it began with: asked before rows are kept, and before anything is written.

Rows are stored only while every file is what it was, so that those of other data never get under the key of the run's.
The images of a list are too many to be looked at each time: they are compared at the end, and if one is other the rows
of the run are taken out of the journal again.
"""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from distcalib.data import Index, Watched, data_identity, watch
from distcalib.engine.intel_caffe import WEIGHTS
from distcalib.engine.net import Net
from distcalib.errors import DataError
from distcalib.journal.resume import Resuming


class Guard:
    """Of the files that `net` and its `weights` are measured with, and the arrays of `data`."""

    def __init__(self, net: Net, weights: Path, data: Path | None) -> None:
        """Look at them, before anything is opened."""
        self._layers = [node.layer for node in net.graph]  # scores read files, too: the sizes of images
        self._path = net.path
        self._others = {WEIGHTS: weights} | ({} if data is None else {"the arrays": data})
        self._indexes: Mapping[str, Index | None] = {}
        self._watched = watch(self._layers, net.path, {}, self._others)
        self._identity: list[object] = []
        self._rests = False

    def opened(self, indexes: Mapping[str, Index | None]) -> Watched:
        """What actors are to find; raises DataError if something changed while the driver opened the data."""
        before, self._indexes = self._watched, indexes
        self._watched = watch(self._layers, self._path, indexes, self._others)
        before.check_all()
        self._identity = self._looked_at()
        return self._watched

    def identity(self) -> list[object]:
        """What the key of rows is made from: the files as they were when they were opened."""
        self._watched.check_all(ends=True)
        return self._identity

    def rest(self) -> None:
        """All is read once and was sent to the actors: what becomes of the files is of no more concern, if they are now
        what they were."""
        self.finish(None)
        self._watched, self._rests = Watched({}, ""), True

    def glance(self) -> None:
        """Raise DataError if a file is not what it was."""
        self._watched.check_all()

    def look(self) -> None:
        """The same for certain, however many files there are."""
        self._watched.check_all(ends=True)

    def finish(self, resuming: Resuming | None) -> None:
        """Raise DataError if a file, or an image of a list, is not what it was; the journal may lose rows then."""
        self._watched.check_all(ends=True)
        now = self._identity if self._rests else self._looked_at()
        pairs = zip_longest(self._identity, now)
        changed = [(old, new) for old, new in pairs if new != old and not _was_absent(old)]
        if not changed:
            return
        if resuming is not None:
            resuming.forget()
        known = [pair[0][0] for pair in changed if isinstance(pair[0], tuple)]
        raise DataError(
            f"{known[0] if known else self._path}: was changed since the run began; nothing may change its data "
            "meanwhile, so put it back and give the command again"
        )

    def _looked_at(self) -> list[object]:
        """The files, and every image of a list."""
        return [*data_identity(self._layers, self._path, self._indexes)]


def _was_absent(identity: object) -> bool:
    """Whether a file was not there when the run began: it counts as absent for all of it, should it come later."""
    return isinstance(identity, tuple) and identity[1] < 0
