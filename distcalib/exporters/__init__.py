"""Nets to be taken away: the model that the engine runs, in files that run without it."""

from distcalib.exporters.building import Exported, build_export
from distcalib.exporters.ir import save_ir

__all__ = ["Exported", "build_export", "save_ir"]
