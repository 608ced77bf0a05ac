"""Whether a score will lose more than is tolerated, as soon as the iterations left cannot change the answer.

The bound is exact: an accuracy of the iterations left is at least 0 and at most 1, a loss at least 0; what an mAP can
come to is proved in distcalib.metrics.detections. With a confidence, a paired test may answer earlier: the losses of
single iterations against FP32's vary far less than the scores do, and where images can be drawn one by one, those that
may flip are drawn sooner (distcalib.metrics.drawing). It looks at fixed numbers of iterations, taken in a fixed order
that is spread over the data, so its answer does not depend on which actor was faster. Nor does it depend on how much
was measured by then: with a confidence the answer is that of the shortest beginning of the order which allows one, and
what came in behind it is not looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from distcalib.metrics.detections import DEFAULT_AP, Detections
from distcalib.metrics.drawing import LEAST_FLIPS, Drawing
from distcalib.metrics.partial import Partial, PartialScore, detections_of, means_of, merged, shares_of
from distcalib.metrics.segmentation import Confusion, confusions_of

# Looks at this many iterations, then at 1.5 times as many, and so on; each may err with an equal part of the whole.
FIRST_LOOK = 8
LOOK_FACTOR = 1.5
_MARGIN = 1e-9  # far above the rounding of sums, far below a record


@dataclass(frozen=True)
class Decider:
    """Decides about scores of `len(reference)` iterations against those of FP32, `reference`, in iteration order.

    `upper`: the largest value that one iteration can have; None for losses, which have no largest and are better the
    lower they are.  `confidence`: how sure an early answer must be; None: certain, and detections know no other.
    `ap_version`: how these become an AP.  `probes`: where hard iterations come first, some that are spread from the
    hardest to the easiest.  `drawing`: how the images of the iterations were drawn, for a confidence.
    """

    reference: Sequence[PartialScore]
    tolerance: float
    upper: int | None = 1
    confidence: float | None = None
    ap_version: str = DEFAULT_AP
    probes: tuple[int, ...] = ()
    drawing: Drawing | None = None

    @cached_property
    def fp32(self) -> float:
        """The score of FP32."""
        return self.score(self.reference)

    @cached_property
    def _shares(self) -> Sequence[float]:
        """What each iteration weighs, 1 on average: the same of every net, for all read the same records."""
        return [float(share) for share in shares_of(means_of(self.reference))]

    @cached_property
    def _order(self) -> tuple[int, ...]:
        n = len(self.reference)
        return spread(n) if self.drawing is None else tuple(range(n))

    @cached_property
    def _looks(self) -> tuple[int, ...]:
        return looks(len(self.reference)) if self.drawing is None else self.drawing.looks

    @property
    def order(self) -> tuple[int, ...] | None:
        """The order in which iterations should be measured; None where it does not matter."""
        return None if self.confidence is None else self._order

    @cached_property
    def patience(self) -> int:
        """How many more iterations are worth asking again for: a bound on mAP sorts all detections so far."""
        return max(1, len(self.reference) // 16) if detections_of(self.reference[:1]) else 1

    def score(self, values: Sequence[PartialScore]) -> float:
        """The score of all iterations."""
        return merged(values, self.ap_version)

    def drop(self, values: Sequence[PartialScore]) -> float:
        """What all iterations lose against FP32: positive is worse, infinite for a score that is not a number."""
        score, fp32 = self.score(values), self.fp32
        # Scores are fractions of a number of records; what differs below 1e-12 is the binary form of the decimals.
        drop = round(fp32 - score if self.upper is not None else score - fp32, 12)
        return drop if drop == drop else math.inf

    def decide(self, values: Mapping[int, PartialScore]) -> bool | None:
        """Whether the drop will be at most the tolerance, from the iterations measured so far; None: not known yet."""
        if self.confidence is not None:
            verdict = self._sequential(_means(values), self.confidence)
            return None if verdict is None else verdict[0]
        n = len(self.reference)
        if len(values) == n:
            return self.drop([values[i] for i in range(n)]) <= self.tolerance
        measured = detections_of(values[i] for i in sorted(values))
        if measured:
            return self._bounded(measured, detections_of(self.reference[i] for i in range(n) if i not in values))
        confusions = confusions_of([values[i] for i in sorted(values)])
        if confusions:
            left = confusions_of([self.reference[i] for i in range(n) if i not in values])
            highest = Confusion.summed(confusions).at_best(left).mean_iou
            return False if self.fp32 - highest > self.tolerance + _MARGIN else None
        known = _means(values)
        total = math.fsum(self._shares[i] * partial.value for i, partial in known.items())
        return self._certain(total, math.fsum(self._shares[i] for i in known))

    @cached_property
    def probing(self) -> tuple[int, ...]:
        """All iterations, the probes first."""
        probes = frozenset(self.probes)
        return (*self.probes, *(i for i in range(len(self.reference)) if i not in probes))

    def loses(self, values: Mapping[int, PartialScore]) -> float | None:
        """About what all iterations lose, as soon as a beginning of `probing` shows that it is too much; else None.

        The beginning is the shortest that does, however much was measured: it loses what it loses, and of the rest each
        iteration as much as the probes among it.
        """
        total = weight = 0.0
        for length, iteration in enumerate(self.probing, 1):
            value = values.get(iteration)
            if not isinstance(value, Partial):
                return None
            total += self._shares[iteration] * value.value
            weight += self._shares[iteration]
            if self._certain(total, weight) is False:
                return self._extrapolated(self.probing[:length], _means(values))
        return None

    def _extrapolated(self, beginning: Sequence[int], values: Mapping[int, Partial]) -> float:
        losses = {i: self._loss(i, values[i]) for i in beginning}
        hard = max((i for i in beginning if i not in self.probes), default=-1)
        easy = [losses[i] for i in self.probes if i > hard and i in losses]
        n_left = len(self.reference) - len(beginning)
        left = n_left * math.fsum(easy) / len(easy) if easy else 0.0
        loss = (math.fsum(losses.values()) + left) / len(self.reference)
        return loss if loss == loss else math.inf

    def likely_drop(self, partials: Mapping[int, PartialScore]) -> float:
        """The mean loss of the iterations that the verdict of a confidence was made from; of all, if none was."""
        if confusions_of(list(partials.values())):
            measured = sorted(partials)
            return merged([self.reference[i] for i in measured]) - merged([partials[i] for i in measured])
        values = _means(partials)
        if self.probes and self.confidence is None and (lost := self.loses(partials)) is not None:
            return lost
        verdict = None if self.confidence is None else self._sequential(values, self.confidence)
        if self.drawing is not None and verdict is not None and verdict[1] < len(self.drawing):
            looked = max((look for look in self.drawing.looks if look <= verdict[1]), default=0)
            if looked:  # a certain verdict may come before
                return self.drawing.loss(partials, looked)[0]
        used = list(values) if verdict is None else self._order[: verdict[1]]
        loss = math.fsum(self._loss(i, values[i]) for i in used) / len(used)
        return loss if loss == loss else math.inf

    def _bounded(self, measured: Sequence[Detections], left: Sequence[Detections]) -> bool | None:
        """By what the mAP can come to at the most; at the least it is nearly nothing before the end."""
        _, highest = Detections.bounds(measured, left, self.ap_version)
        return False if self.fp32 - highest > self.tolerance + _MARGIN else None

    def _certain(self, total: float, known: float) -> bool | None:
        """By what the iterations left can contribute at the most and at the least to the `total` of those known, which
        weigh `known` together.
        """
        n, fp32 = len(self.reference), self.fp32
        so_far = total / n
        if not math.isfinite(so_far):
            return False
        if self.upper is None:
            return False if so_far - fp32 > self.tolerance + _MARGIN else None
        if fp32 - (so_far + self.upper * (n - known) / n) > self.tolerance + _MARGIN:
            return False
        return True if fp32 - so_far <= self.tolerance - _MARGIN else None

    def _sequential(self, values: Mapping[int, Partial], confidence: float) -> tuple[bool, int] | None:
        """The answer of the shortest beginning of the order that gives one, and its length."""
        n, order, stages = len(self.reference), self._order, frozenset(self._looks)
        total = known = 0.0
        for length, iteration in enumerate(order, 1):
            if iteration not in values:
                return None
            total += self._shares[iteration] * values[iteration].value
            known += self._shares[iteration]
            if length == n:
                return self.drop([values[i] for i in range(n)]) <= self.tolerance, n
            answer = self._certain(total, known)
            if answer is None and length in stages and self.drawing is not None:
                answer = self._likely_of(self.drawing, values, length, confidence)
            elif answer is None and length in stages:
                answer = self._likely([self._loss(i, values[i]) for i in order[:length]], confidence)
            if answer is not None:
                return answer, length
        return None

    def _likely(self, losses: Sequence[float], confidence: float) -> bool | None:
        """By a paired t-test of the losses of the iterations at a look, corrected for drawing without return.

        The looks are stages of a sequential test: the error allowed is divided among them (Bonferroni).
        """
        n, stage = len(self.reference), len(losses)
        center = math.fsum(losses) / stage
        variance = math.fsum((loss - center) ** 2 for loss in losses) / (stage - 1)
        # At least as much as if one image in the sample had flipped: agreement in a few batches proves nothing.
        floor = 1.0 / (stage * max(self.reference[0].denominator, 1)) ** 2
        error = math.sqrt(max(variance, floor) / stage * (1 - stage / n))
        return self._beyond(center, error, stage - 1, confidence)

    def _likely_of(
        self, drawing: Drawing, values: Mapping[int, Partial], length: int, confidence: float
    ) -> bool | None:
        """By what is estimated of all images from those drawn; the error is known as well as there are flips."""
        center, error, n_flips = drawing.loss(values, length)
        return None if n_flips < LEAST_FLIPS else self._beyond(center, error, n_flips - 1, confidence)

    def _beyond(self, center: float, error: float, degrees: int, confidence: float) -> bool | None:
        """Whether a loss of about `center` is on one side of the tolerance, with this look's part of the error."""
        bound = _student(1 - (1 - confidence) / 2 / len(self._looks), degrees) * error
        if center - bound > self.tolerance:
            return False
        return True if center + bound <= self.tolerance else None

    def _loss(self, iteration: int, value: Partial) -> float:
        lost = (means_of([self.reference[iteration]])[0].value - value.value) * self._shares[iteration]
        return lost if self.upper is not None else -lost


def _means(values: Mapping[int, PartialScore]) -> dict[int, Partial]:
    return {i: value for i, value in values.items() if isinstance(value, Partial)}


def looks(n: int) -> tuple[int, ...]:
    """The numbers of iterations, of `n`, at which an early answer may be given; none is within the last tenth."""
    counts, at = [], float(FIRST_LOOK)
    while at <= 0.9 * n:
        counts.append(int(at))
        at *= LOOK_FACTOR
    return tuple(counts)


def spread(n: int) -> tuple[int, ...]:
    """0 .. n-1 in an order of which each beginning is spread evenly: by the reversed bits of the numbers.

    So the first part of it is a stratified sample, even of data that is sorted by class.
    """
    n_bits = max(1, (n - 1).bit_length())
    return tuple(sorted(range(n), key=lambda i: int(f"{i:0{n_bits}b}"[::-1], 2)))


def _student(p: float, degrees: int) -> float:
    """The quantile of Student's t, by its expansion around the normal one; within 2 % from 7 degrees on.

    Source: Abramowitz and Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(p)
    g = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + math.fsum(term / degrees ** (k + 1) for k, term in enumerate(g))
