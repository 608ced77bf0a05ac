"""The instruction set that a measurement is made with: part of what a score depends on.

Without VNNI the INT8 kernels multiply u8·s8 pairs into saturating int16, as Intel Caffe does on Skylake; with it they
are exact. oneDNN reads its limit once, when it is loaded, so actors get it in their environment before they import
openvino.
"""

import os
import platform
from pathlib import Path

from distcalib.errors import OptionError
from distcalib.measure.machine import ISA_VARIABLE, usable_isas

# Name on the command line -> oneDNN's name; "native" sets no limit.
ISAS = {
    "native": "",
    "skylake": "AVX512_CORE",
    "cascadelake": "AVX512_CORE_VNNI",
    "sapphirerapids": "AVX512_CORE_AMX",
}
_CPUINFO = Path("/proc/cpuinfo")


def known_isa(isa: str) -> str:
    """oneDNN's name of `isa`, "" for no limit; OptionError for an unknown one."""
    if isa not in ISAS:
        raise OptionError(f"--isa {isa}: is none; {', '.join(ISAS)} are")
    return ISAS[isa]


def isa_environment(isa: str, cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """The environment that holds an actor to `isa`.  OptionError for an unknown one and for one the CPU lacks."""
    wanted = known_isa(isa)
    if not wanted:
        return {}
    available = _available(cpuinfo)
    if wanted not in available:
        best = available[0].lower() if available else platform.machine()
        raise OptionError(f"--isa {isa}: this CPU does not have {wanted.lower()}, {best} is its widest; leave it out")
    return {ISA_VARIABLE: wanted}


def measured_isa(isa: str = "native", cpuinfo: Path = _CPUINFO) -> str:
    """The widest instruction set that oneDNN uses under `isa`, by its own name in small letters."""
    names = _available(cpuinfo, ISAS[isa] or os.environ.get(ISA_VARIABLE, ""))
    return names[0].lower() if names else platform.machine()


def _available(cpuinfo: Path, limit: str = "") -> tuple[str, ...]:
    return usable_isas(cpuinfo.read_text() if cpuinfo.exists() else "", limit)
