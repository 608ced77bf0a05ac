"""evaluate() in one line of a test: its options as keywords."""

from pathlib import Path
from typing import Any

import distcalib
from distcalib.report import Evaluation
from distcalib.session.progress import Reporter


def evaluate(
    model: str | Path, weights: str | Path, iterations: int = 10, *, reporter: Reporter | None = None, **options: Any
) -> Evaluation:
    """What distcalib.evaluate finds over so many iterations, by one actor unless `n_actors` says otherwise."""
    asked = distcalib.EvaluationOptions(iterations=iterations, **{"n_actors": 1, **options})
    return distcalib.evaluate(model, weights, asked, reporter=reporter)
