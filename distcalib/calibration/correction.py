"""Biases that take out the mean error that INT8 makes in a layer."""

from dataclasses import replace
from math import ceil

import numpy as np

from distcalib.actors import Job
from distcalib.calibration.candidate_net import with_params
from distcalib.calibration.goal import Goal, evenly
from distcalib.calibration.meter import Meter
from distcalib.engine.net import Net
from distcalib.engine.spec import Sampling
from distcalib.errors import EngineError
from distcalib.quantize.bias_correction import correctable, corrected
from distcalib.quantize.scales import Calibration
from distcalib.session.backend import rows

PHASE = "mean errors"
ERROR_IMAGES = 300
"""Of the sampled iterations, evenly among them: the mean over these and their positions is as good as one over 1,000,
see docs/recover.md."""


def correct(meter: Meter, base: Net, goal: Goal, calibration: Calibration) -> Calibration:
    """`calibration` of `base` with the biases that take out the mean error of each INT8 layer on sampled iterations.

    A layer's error is that of the all-INT8 net's parameters, whatever other layers fall back later.
    """
    quantizer, start = calibration.quantizer, calibration.quantizer.space.all_int8
    groups = {name: quantizer.groups[name] for name in start.int8_layers}
    names = correctable(quantizer.graph, groups)
    if not names:
        return calibration
    taps = tuple(groups[name].node.tops[0] for name in names)
    sampled, batch = goal.options.sampled, meter.session.batch
    order = evenly(len(sampled), ceil(ERROR_IMAGES / batch))
    sampling = Sampling(taps, True, sampled.start, sampled.stop, 1, errors=True)
    spec = with_params(base, calibration.params(start)).spec(sampling, calibration.equalized)
    [result] = meter.run(PHASE, [Job(f"{PHASE}/0", spec, len(order), PHASE, order=order)])
    # In iterations; one that records were left out of counts as the part of one that it is.
    sized = [(row, 1.0 - row.n_missing / batch) for row in rows(result)]
    n = sum(size for _, size in sized)
    errors = {
        name: np.asarray(sum(row.values[tap].astype(np.float64) * size for row, size in sized)) / n
        for name, tap in zip(names, taps, strict=True)
    }
    wrong = [name for name in names if not np.isfinite(errors[name]).all()]
    if wrong:
        raise EngineError(
            f"{base.name}: layer '{wrong[0]}': its INT8 error is not finite on the sampled iterations; leave out "
            "--bias-correction"
        )
    biases = {name: corrected(groups[name], calibration.weights, errors[name]) for name in names}
    meter.note(f"bias correction: {len(names)} layers")
    return replace(calibration, corrected=biases)
