"""The CPU whose integers are computed, and how: part of what a score depends on.

A score belongs to a target, not to the machine that measures. Cascade Lake and Sapphire Rapids have exact 32-bit sums
(VNNI, AMX) and give one answer; Skylake halves the weights of convolutions with s8 input and lets pairs of products
with u8 input saturate. CPUs with VNNI compute the first natively, all others with FP32 kernels that emulate it (see
engine/arithmetic.py). The pairs of Skylake need kernels that saturate: those of AVX-512 and of AVX2 add the same pairs
(tests/engine/test_native_kernels.py), and a CPU with VNNI has them, too, where oneDNN is held to AVX-512.

oneDNN reads its limit once, when it is loaded, so actors get it in their environment before they import openvino.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distcalib.actors.machine import ISA_VARIABLE, read_text, usable_isas
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.errors import OptionError

NATIVE_ISA = "native"
"""The target that the CPUs at hand are closest to: the newest that they compute natively, else cascadelake emulated."""
TARGETS = ("skylake", "cascadelake", "sapphirerapids")
ISAS = (NATIVE_ISA, *TARGETS)
"""What --isa takes."""

EXACT = ("AVX512_CORE_AMX", "AVX512_CORE_VNNI", "AVX2_VNNI")
SATURATING = ("AVX512_CORE", "AVX2")
_KERNELS = {
    "skylake": SATURATING,
    "cascadelake": EXACT[1:],
    "sapphirerapids": EXACT,
}
"""oneDNN's names of the kernels that give the target's answer."""
_NEWEST = {"AVX512_CORE_AMX": "sapphirerapids", "AVX512_CORE": "skylake"}
"""By the widest instruction set of a CPU the target that it is measured for by default; all others: cascadelake."""

CPUINFO = Path("/proc/cpuinfo")
ARITHMETIC_VARIABLE = "DISTCALIB_ARITHMETIC"
_ARITHMETICS = {"native": NATIVE, "halved": Arithmetic(halved=True), "emulated": Arithmetic(emulated=True)}
_NAMES = {arithmetic: name for name, arithmetic in _ARITHMETICS.items()}


@dataclass(frozen=True)
class Isa:
    """The `target` whose integers are computed, whether in FP32 kernels, and the widest `kernels` used, oneDNN's name
    in small letters.
    """

    target: str
    emulated: bool
    kernels: str

    @property
    def way(self) -> str:
        """How the integers are computed: `native` or `emulated`."""
        return "emulated" if self.emulated else "native"

    @property
    def arithmetic(self) -> Arithmetic:
        """How INT8 layers are computed."""
        return Arithmetic(self.emulated, halved=self.target == "skylake")

    def __str__(self) -> str:
        return f"{self.target}, {self.way}"


def known_isa(isa: str) -> str:
    """`isa` itself; OptionError for an unknown one."""
    if isa not in ISAS:
        raise OptionError(f"--isa {isa}: unknown; choose {', '.join(ISAS[:-1])} or {ISAS[-1]}")
    return isa


def way_of(target: str, isas: Sequence[str]) -> str:
    """How a CPU with these instruction sets computes `target`: `native`, `emulated` or `impossible`."""
    if any(name in isas for name in _KERNELS[target]):
        return "native"
    return "impossible" if target == "skylake" else "emulated"


def choose_isa(isa: str, isas: Sequence[str]) -> Isa:
    """What CPUs that have `isas` in common, widest first, compute for --isa.

    Raises OptionError for a target that is unknown or cannot be computed.
    """
    known_isa(isa)
    widest = isas[0] if isas else ""
    target = _NEWEST.get(widest, "cascadelake") if isa == NATIVE_ISA else isa
    way = way_of(target, isas)
    if way == "impossible":
        raise OptionError(
            f"--isa {isa}: pairs of products that saturate as there need kernels of AVX-512 or AVX2, which "
            "not every CPU of this run has; choose cascadelake"
        )
    kernels = next(name for name in isas if name in _KERNELS[target]) if way == "native" else widest
    return Isa(target, way == "emulated", kernels.lower() or platform.machine())


def environment_of(isa: Isa, asked: str, nodes: Sequence[Sequence[str]]) -> Mapping[str, str]:
    """What holds actors to it, on nodes with these instruction sets: a limit for oneDNN where one was `asked` for or
    is needed, and the arithmetic.
    """
    name = isa.kernels.upper()
    limited = any(isas and isas[0] != name for isas in nodes) or (asked != NATIVE_ISA and not isa.emulated)
    return arithmetic_environment(isa) | ({ISA_VARIABLE: name} if limited else {})


def arithmetic_environment(isa: Isa) -> dict[str, str]:
    """What tells actors the arithmetic alone; see arithmetic_of."""
    return {ARITHMETIC_VARIABLE: _NAMES[isa.arithmetic]}


def arithmetic_of(environment: Mapping[str, str]) -> Arithmetic:
    """What `environment_of` put into an actor's environment."""
    return _ARITHMETICS[environment[ARITHMETIC_VARIABLE]]


def isa_here(isa: str = NATIVE_ISA, cpuinfo: Path = CPUINFO) -> Isa:
    """What this machine alone computes for --isa.  Raises OptionError if it cannot."""
    return choose_isa(isa, usable_isas(read_text(cpuinfo), os.environ.get(ISA_VARIABLE, "")))
