"""What a calibration goes by: the score, which way it is better, and the iterations that stand for all."""

import math
from dataclasses import dataclass

from distcalib.calibration.image_order import why_natural
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import Net
from distcalib.engine.score_inputs import score_inputs
from distcalib.metrics import lower_is_better
from distcalib.session.inputs import Inputs

# Images that a ranking looks at, in at least two iterations: 200 of 10,000 rank resnet20 as 1,000 do.
RANKED_IMAGES = 200
# What FP32's values of these images may take, unless two iterations take more: every actor gets them. An SSD300 has
# 0.9 MB of boxes and confidences an image, of so many priors that fewer images tell as much.
RANKED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Goal:
    """The score `metric` ("" where nothing is measured), and what it must keep.

    `ranked`: the iterations that a ranking of layers looks at.  `natural`: why images are taken in the order of the
    data; "" if they need not be.
    """

    metric: str
    lower_is_better: bool
    options: CalibrationOptions
    ranked: tuple[int, ...] = ()
    natural: str = ""

    @classmethod
    def of(cls, net: Net, metric: str, options: CalibrationOptions, inputs: Inputs) -> "Goal":
        """That of `net`, which reads `inputs`."""
        n_bytes = inputs.image_bytes(score_inputs(net, metric))
        ranked = ranked_iterations(options.n_scored, inputs.batch, n_bytes)
        natural = why_natural(net, metric, inputs.shapes, options)
        return cls(metric, is_lower_better(net, metric), options, ranked, natural)

    def is_met(self, drop: float) -> bool:
        """Whether no more is lost than tolerated."""
        return drop <= self.options.accuracy_loss


def is_lower_better(net: Net, metric: str) -> bool:
    """Whether the score is a loss."""
    return metric != "" and lower_is_better(net.test, metric)


def ranked_iterations(n_iterations: int, batch: int, image_bytes: int = 0) -> tuple[int, ...]:
    """The iterations that a ranking looks at, spread evenly over the data, which may be sorted by class.

    `image_bytes`: what the compared values of an image take; 0: not worth counting.
    """
    n_images = min(RANKED_IMAGES, RANKED_BYTES // image_bytes) if image_bytes else RANKED_IMAGES
    return evenly(n_iterations, max(2, math.ceil(n_images / batch)))


def evenly(n_iterations: int, n_wanted: int) -> tuple[int, ...]:
    """So many iterations, or all, that lie evenly among all: the data may be sorted by class."""
    n = min(n_iterations, n_wanted)
    return tuple(i * n_iterations // n for i in range(n))
