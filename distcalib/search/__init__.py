"""Strategies that find the layers which must fall back to FP32; pure generators over candidates."""

from distcalib.search.fallback import STRATEGIES, make_strategy
from distcalib.search.strategy import Measurement, Search, Strategy

__all__ = ["STRATEGIES", "Measurement", "Search", "Strategy", "make_strategy"]
