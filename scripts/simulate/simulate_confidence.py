"""How often `--confidence` errs where nothing is harder to tell: candidates lose what is tolerated, or a hair more.

    python -m scripts.simulate.simulate_confidence [--runs 4000]

Nets of margins that a normal distribution gave, moved by another one; sorted data is in a row of its own. The table in
docs/search.md is what this prints.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distcalib.metrics import ByImage, Decider, Drawing, Hits, drawn

CONFIDENCES = (0.9, 0.99, 0.999)
SHAPES = ((100, 100), (200, 50), (40, 32))
"""Iterations, and images of each."""


def scored(drawing: Drawing, right: NDArray[np.bool_]) -> dict[int, Hits]:
    """What a candidate that has these images `right` says of each batch."""
    batches = [right[batch[batch >= 0]] for batch in drawing.images]
    return {i: Hits(int(hits.sum()), len(hits), len(hits), hits.tobytes()) for i, hits in enumerate(batches)}


def runs(n: int, batch: int, n_runs: int, shift: float, spread: float) -> Iterator[tuple[Drawing, dict[int, Hits]]]:
    """Nets and candidates."""
    rows = np.arange(batch, dtype=np.int32)
    for seed in range(n_runs):
        random = np.random.default_rng([seed, n, batch])
        margins = random.normal(0.8, 1.0, n * batch).astype(np.float32)
        if seed % 2:
            margins.sort()
        drawing = drawn([ByImage(rows, part > 0, part) for part in margins.reshape(n, batch)], batch)
        yield drawing, scored(drawing, margins + random.normal(-shift, spread, n * batch) > 0)


def errors(n: int, batch: int, n_runs: int, shift: float, spread: float) -> list[float]:
    """The part of verdicts that are wrong, by confidence: the tolerance is the drop, or less by half an image."""
    wrong = np.zeros(len(CONFIDENCES))
    for i, (drawing, values) in enumerate(runs(n, batch, n_runs, shift, spread)):
        drop = Decider(drawing.reference, 0.0).drop([values[k] for k in range(n)])
        above = bool(i // 2 % 2)
        tolerance = drop - 0.5 / (n * batch) if above else drop
        for place, confidence in enumerate(CONFIDENCES):
            decider = Decider(drawing.reference, tolerance, confidence=confidence, drawing=drawing)
            wrong[place] += decider.decide(values) is above
    return [float(count) / n_runs for count in wrong]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="of each row")
    args = parser.parse_args()
    print(
        "| iterations x images | candidate moves margins by | "
        + " | ".join(f"errs at {c:g}" for c in CONFIDENCES)
        + " |"
    )
    print("|" + " --- |" * (2 + len(CONFIDENCES)))
    for n, batch in SHAPES:
        for shift, spread in ((0.02, 0.1), (0.1, 0.3), (0.4, 0.5)):
            found = errors(n, batch, args.runs, shift, spread)
            print(
                f"| {n} x {batch} | -{shift:g} +- {spread:g} | " + " | ".join(f"{e:.4f}" for e in found) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
