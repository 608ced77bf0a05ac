"""What the scales of each layer are made from, for the report: the range and the spread of its input, its weights.

Algorithms that look at every value have counted them.  For the others the values of one iteration are handed out and
counted when the search is done: to do so during the FP32 pass would slow all of it.
"""

from collections.abc import Mapping, Sequence
from math import ceil, prod

import numpy as np

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.looks import Look
from distcalib.engine.net import Net
from distcalib.engine.spec import Sampling
from distcalib.quantize.histogram import Histogram
from distcalib.quantize.scales import S8_MAX, U8_MAX, Calibration
from distcalib.report import LayerDetail
from distcalib.session.backend import rows
from distcalib.session.session import Session

PHASE = "inputs of layers"
MAX_BYTES = 256 * 2**20
"""Values of one iteration that are counted; of the largest blobs of a large net only the ends are told."""
N_BINS, N_CHANNELS = 64, 64


def input_sizes(
    session: Session, base: Net, calibration: Calibration, sampled: range
) -> Look[Mapping[Blob, Histogram]]:
    """The sizes of what the layers read that can be INT8, by blob: over all `sampled`, or its first iteration."""
    blobs = _inputs(calibration)
    known = {blob: calibration.ranges[blob].histogram for blob in blobs}
    histograms = {blob: histogram for blob, histogram in known.items() if histogram is not None}
    taps = _fitting(session, [blob for blob in blobs if blob not in histograms])
    if not taps:
        return Look((), lambda _: histograms)
    sampling = Sampling(taps, True, sampled.start, sampled.start + 1, 1)
    job = Job(PHASE, base.spec(sampling, calibration.equalized), sampling.n_rows, PHASE, may_fail=True)

    def made(results: Sequence[JobResult]) -> Mapping[Blob, Histogram]:
        ranges = [pair for row in rows(results[0]) for pair in zip(taps, row.ranges, strict=True)]
        return histograms | {tap: one.histogram for tap, one in ranges if one.histogram is not None}

    return Look([job], made)


def _inputs(calibration: Calibration) -> list[Blob]:
    quantizer = calibration.quantizer
    return list(dict.fromkeys(quantizer.groups[name].input for name in quantizer.space.order))


def _fitting(session: Session, blobs: Sequence[Blob]) -> tuple[Blob, ...]:
    """Those that are counted, in their order: the smallest, as long as there is room."""
    size = {blob: 4 * prod(session.inputs.shapes[blob]) for blob in blobs}
    chosen, left = set[Blob](), MAX_BYTES
    for blob in sorted(blobs, key=lambda blob: size[blob]):
        left -= size[blob]
        if left < 0:
            break
        chosen.add(blob)
    return tuple(blob for blob in blobs if blob in chosen)


def layer_details(
    calibration: Calibration, delivered: Net, histograms: Mapping[Blob, Histogram]
) -> Mapping[str, LayerDetail]:
    """By layer that can be INT8, in net order."""
    quantizer = calibration.quantizer
    made = {layer.name: layer.quantization_param for layer in delivered.test.layer}
    params = calibration.params(quantizer.space.all_int8)
    params |= {name: made[name] for name in params if made[name].scale_in}
    details = {}
    for name in quantizer.space.order:
        blob, param = quantizer.groups[name].input, params[name]
        end = S8_MAX if param.is_negative_input else U8_MAX
        is_other = quantizer.options.first_conv_force_u8 and name == quantizer.first
        threshold = None if is_other else end / param.scale_in[0]
        details[name] = _detail(calibration, name, blob, threshold, histograms.get(blob))
    return details


def _detail(
    calibration: Calibration, name: str, blob: Blob, threshold: float | None, histogram: Histogram | None
) -> LayerDetail:
    ends, channels = calibration.ranges[blob], np.sort(calibration.channel_sizes(name))[::-1]
    n = min(len(channels), N_CHANNELS)
    shown = channels[np.arange(n) * (len(channels) - 1) // max(1, n - 1)]
    width, clipped = 0.0, None
    sizes: tuple[int, ...] = ()
    if histogram is not None:
        width, sizes = _bins(histogram)
        clipped = None if threshold is None else _beyond(histogram, threshold)
    return LayerDetail(
        blob.name,
        _rounded(ends.low),
        _rounded(ends.high),
        None if threshold is None else _rounded(threshold),
        clipped,
        width,
        sizes,
        len(channels),
        tuple(_rounded(one) for one in shown),
    )


def _bins(histogram: Histogram) -> tuple[float, tuple[int, ...]]:
    """The width and the counts of at most N_BINS bins, the last of which holds the largest value."""
    filled = np.flatnonzero(histogram.counts)
    n_used = int(filled[-1]) + 1 if len(filled) else 1
    times = ceil(n_used / N_BINS)
    counts = np.zeros(ceil(n_used / times) * times, np.int64)
    counts[:n_used] = histogram.counts[:n_used]
    return histogram.width * times, tuple(counts.reshape(-1, times).sum(axis=1).tolist())


def _beyond(histogram: Histogram, threshold: float) -> float:
    """The part of the values that lie in bins beyond the threshold."""
    edge = threshold / histogram.width
    total = int(histogram.counts.sum())
    beyond = int(histogram.counts[ceil(edge) :].sum())
    return _rounded(beyond / total) if total else 0.0


def _rounded(value: float) -> float:
    """To what a reader wants to see."""
    return float(f"{value:.5g}")
