"""Strategies that find the layers which must fall back to FP32; pure generators over candidates."""

from distcalib.search.curve import curve
from distcalib.search.fallback import STRATEGIES, make_strategy, strategy
from distcalib.search.strategy import (
    Answer,
    Ask,
    Decide,
    Measure,
    Measurement,
    Rank,
    Ranking,
    Request,
    Search,
    Strategy,
    Verdict,
)

__all__ = [
    "STRATEGIES",
    "Answer",
    "Ask",
    "Decide",
    "Measure",
    "Measurement",
    "Rank",
    "Ranking",
    "Request",
    "Search",
    "Strategy",
    "Verdict",
    "curve",
    "make_strategy",
    "strategy",
]
