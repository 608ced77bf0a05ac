"""What the CPU under the tests has, as oneDNN sees it: ONEDNN_MAX_CPU_ISA hides what is wider."""

import os
from pathlib import Path

import pytest

from distcalib.actors.machine import ISA_VARIABLE, read_text, usable_isas

ISAS = usable_isas(read_text(Path("/proc/cpuinfo")), os.environ.get(ISA_VARIABLE, ""))
"""oneDNN's names, widest first."""
_WHOLE = usable_isas(read_text(Path("/proc/cpuinfo")))
HAS_VNNI = any(name.endswith(("VNNI", "AMX")) for name in ISAS)

needs_avx2 = pytest.mark.skipif(not ISAS, reason="needs the INT8 kernels of a CPU with AVX2")
needs_vnni = pytest.mark.skipif(not HAS_VNNI, reason="needs the exact INT8 kernels of a CPU with VNNI or AMX")
not_held_to_avx2 = pytest.mark.skipif(
    "AVX512_CORE" in _WHOLE and "AVX512_CORE" not in ISAS,
    reason="OpenVINO 2026.4 ends with SIGSEGV in its MVN where oneDNN is held to AVX2 on a CPU with AVX-512",
)
