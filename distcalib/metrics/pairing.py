"""Two nets on the same images: what the difference of their hits is worth."""

import math

_Z = 1.959963984540054
"""The quantile of the normal distribution that leaves out 5 % at both ends."""


def paired_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """The 95 % interval of (lost - gained) / n, of `n` images that both nets saw.

    Half an image is added to each of the four cells, so that no change at all is not taken for certainty (Agresti and
    Min 2005).
    """
    total, b, c = n + 2.0, lost + 0.5, gained + 0.5
    center = (b - c) / total
    error = math.sqrt(max(b + c - (b - c) ** 2 / total, 0.0)) / total
    return max(center - _Z * error, -1.0), min(center + _Z * error, 1.0)


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p value of McNemar's test: whether those that changed fell as a fair coin does."""
    n, least = lost + gained, min(lost, gained)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2.0))
        for i in range(least + 1)
    )
    return min(1.0, 2.0 * tail)
