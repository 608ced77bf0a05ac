"""What the images are that INT8 loses: what both nets take them for, where they are in the data, how they look.

The search keeps of an image only whether it is right.  So the lost ones are run once more when it is done, through the
delivered net and, where the class that FP32 put first does not follow from its being right, through the FP32 net: some
batches of nothing but lost images.  Keys and pictures are read by the driver, which has opened the data before.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.calibration.changes import MOST_LISTED, Compared
from distcalib.calibration.looks import Look
from distcalib.calibration.results import Classified
from distcalib.calibration.search_driver import Searching
from distcalib.data import NamingSource, Source, open_source, thumbnail
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError
from distcalib.metrics import classes_of
from distcalib.quantize.candidate import Candidate
from distcalib.report import Changes, ClassChange, LostImage
from distcalib.session.backend import rows
from distcalib.session.session import Session

PHASE = "lost images"
MOST_CLASSIFIED = 500
"""Lost images that are run once more; of more as many that lie evenly among them, since data may be sorted by class."""
MOST_CHANGES = 10
MOST_PICTURE_BYTES = 2**20
"""Of all thumbnails together, as they stand in the page."""


@dataclass(frozen=True)
class ShownImages:
    """Keys and pictures (data URIs) of lost images, by number, as far as there are some."""

    keys: Mapping[int, str] = field(default_factory=dict)
    pictures: Mapping[int, str] = field(default_factory=dict)


def classify_lost(searching: Searching, base: Net, winner: Candidate, found: Compared | None) -> Look[Classified]:
    """Run the images that are lost once more: those that are listed, and as many others as stand for all.

    Nothing is found where images were not compared one by one, or none is lost.
    """
    metric, batch = searching.goal.metric, searching.meter.session.batch
    lost = np.zeros(0, np.int64) if found is None else found.lost
    if not len(lost):
        return Look((), lambda _: Classified())
    n_evenly = min(len(lost), MOST_CLASSIFIED)
    evenly = lost[np.arange(n_evenly) * len(lost) // n_evenly]
    numbers = np.union1d(evenly, lost[:MOST_LISTED])
    score = next(node for node in base.graph if node.tops and node.tops[0].name == metric)
    nets = {"delivered": searching.programs.spec(winner)}
    if score.layer.accuracy_param.top_k > 1:  # else what FP32 has right it takes for its label
        nets["FP32"] = base.spec()
    images = _batches(numbers, batch)
    outputs = Outputs(score.bottoms[:2])
    jobs = [_job(name, replace(spec, outputs=outputs, images=images), len(images)) for name, spec in nets.items()]

    def made(results: Sequence[JobResult]) -> Classified:
        seen: dict[str, list[tuple[int, int]]] = {name: [] for name in nets}
        for name, done in zip(nets, results, strict=True):
            if not done.complete:
                return Classified()
            for row in rows(done):
                labels, classes = classes_of(score.layer, [row.values[blob] for blob in outputs.blobs])
                seen[name] += zip(labels, classes, strict=True)
        before = [after[1] for after in seen["FP32"]] if "FP32" in seen else [label for label, _ in seen["delivered"]]
        told = zip(numbers.tolist(), seen["delivered"], before, strict=True)
        return Classified({number: (label, first, after) for number, (label, after), first in told}, evenly.tolist())

    return Look(jobs, made)


def _job(name: str, spec: NetSpec, n_batches: int) -> Job:
    return Job(f"{PHASE}/{name}", spec, n_batches, PHASE, may_fail=True)


def _batches(numbers: NDArray[np.int64], batch: int) -> NDArray[np.int32]:
    """(n, batch), in their order; -1 where the last has no more."""
    images = np.full(-(-len(numbers) // batch) * batch, -1, np.int32)
    images[: len(numbers)] = numbers
    return images.reshape(-1, batch)


def show_lost(session: Session, changes: Changes | None, with_pictures: bool) -> ShownImages:
    """Where the lost images are that `changes` lists, and pictures of them where the data are images.

    A record that cannot be read any more is a note: what was measured is worth more.
    """
    if changes is None or not changes.lost_images:
        return ShownImages()
    keys: dict[int, str] = {}
    pictures: dict[int, str] = {}
    try:
        with ExitStack() as stack:
            sources = list(_sources(session, stack))
            keys = {number: _key(sources, number) for number in changes.lost_images}
            if with_pictures:
                pictures = _pictures(sources, changes.lost_images)
    except DataError as error:
        session.reporter.note(f"lost images are not shown: {error}")
    return ShownImages(keys, pictures)


def with_lost(changes: Changes | None, found: Classified, shown: ShownImages) -> Changes | None:
    """`changes` with what is known of the lost images that it lists."""
    if changes is None:
        return None
    records = [
        LostImage(number, shown.keys.get(number, ""), *found.classes.get(number, ())) for number in changes.lost_images
    ]
    return replace(changes, records=tuple(records), class_changes=_frequent(found), n_classified=len(found.evenly))


def _frequent(found: Classified) -> tuple[ClassChange, ...]:
    """The most frequent changes of class first; of equal ones that of lower classes."""
    counts = Counter(found.classes[number][1:] for number in found.evenly)
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(ClassChange(before, after, n) for (before, after), n in ordered[:MOST_CHANGES])


def _sources(session: Session, stack: ExitStack) -> Iterator[Source]:
    """Those of the net's data layers, opened once more."""
    net, inputs = session.net, session.inputs
    for node in data_nodes(net.graph):
        index = inputs.indexes.get(node.name)
        source = open_source(node.layer, net.path, index, inputs.arrays, inputs.skips)
        stack.callback(source.close)
        yield source


def _key(sources: Sequence[Source], number: int) -> str:
    return next((source.key(number) for source in sources if isinstance(source, NamingSource)), "")


def _pictures(sources: Sequence[Source], numbers: Sequence[int]) -> dict[int, str]:
    """Data URIs by image, as many as there is room for."""
    uris: dict[int, str] = {}
    left = MOST_PICTURE_BYTES
    for number in numbers:
        made = next(filter(None, (thumbnail(source, number) for source in sources)), None)
        if made is None:
            break
        kind, encoded = made
        uri = f"data:{kind};base64,{base64.b64encode(encoded).decode()}"
        left -= len(uri)
        if left < 0:
            break
        uris[number] = uri
    return uris
