"""What the INT8 kernels of CPUs answer: exact sums with VNNI, and without it pairs that saturate, the same on AVX-512
and AVX2.  Each instruction set is measured in a process of its own, since oneDNN reads its limit once.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distcalib.engine.arithmetic import Arithmetic
from tests.cpu import ISAS, needs_vnni
from tests.engine.integer_layers import Case, saturating, sums_of

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "k3": Case(16, 12, 32, pad=1),
    "k1": Case(64, 8, 32, k=1),
    "k1 of 10": Case(10, 8, 16, k=1),
    "k3 of 2": Case(2, 16, 16, pad=1),
    "k3 of 3": Case(3, 16, 16, pad=1),
    "k3 of 5": Case(5, 16, 16, pad=1),
    "k3 of 6": Case(6, 16, 16, pad=1),
    "k5": Case(8, 12, 16, k=5, pad=2, stride=2),
    "dilated": Case(16, 14, 16, pad=2, dilation=2),
    "2 groups": Case(32, 10, 32, pad=1, group=2),
    "4 groups": Case(16, 10, 16, pad=1, group=4),
    "depthwise": Case(32, 10, 32, pad=1, group=32),
    "many": Case(512, 6, 16, pad=1),
    "1 channel": Case(1, 16, 8),
    "1 channel, padded": Case(1, 16, 16, k=5, pad=2, stride=2),
    "k7": Case(3, 32, 16, k=7, pad=3, stride=2),
    "InnerProduct": Case(64, 1, 10, k=0),
    "InnerProduct of 50": Case(50, 2, 20, k=0),
}


def main(path: str) -> None:
    """Write the sums of every case to `path`: of u8 input, and of s8 input with halved weights."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        found[f"{name}/u8"] = sums_of(case, False, Arithmetic(halved=True))
        found[f"{name}/s8"] = sums_of(case, True, Arithmetic(halved=True))
    np.savez(path, **found)


@pytest.fixture(scope="module", params=["AVX512_CORE", "AVX2"])
def skylake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What kernels without VNNI give, by case and type of input."""
    if request.param not in ISAS:
        pytest.skip(f"needs the INT8 kernels of a CPU with {request.param}")
    path = tmp_path_factory.mktemp("sums") / "sums.npz"
    command = f"from tests.engine.test_native_kernels import main; main({str(path)!r})"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": request.param}
    subprocess.run([sys.executable, "-c", command], check=True, cwd=ROOT, env=environment)
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_input_channels_saturate_without_vnni(skylake: dict[str, np.ndarray], name: str) -> None:
    """Channels 0 and 1, 2 and 3, ... at each position of the kernel; depthwise convolutions have none."""
    case = CASES[name]
    x, weight, _ = case.numbers(False)
    pairs = case.sums(x, weight, saturating)
    pairless = case.k > 0 and case.c == case.group
    assert np.array_equal(pairs, case.sums(x, weight)) == pairless, "the case shows saturation"
    assert np.array_equal(skylake[f"{name}/u8"], pairs.astype(np.float32))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.k])
def test_halved_weights_of_signed_input_do_not_saturate(skylake: dict[str, np.ndarray], name: str) -> None:
    case = CASES[name]
    x, weight, _ = case.numbers(True)
    wanted = 2 * case.sums(x, np.rint(weight / 2).astype(np.int64))
    assert np.array_equal(skylake[f"{name}/s8"], wanted.astype(np.float32))


@needs_vnni
@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize("name", CASES)
def test_sums_are_exact_with_vnni(name: str, signed: bool) -> None:
    case = CASES[name]
    x, weight, _ = case.numbers(signed)
    assert np.array_equal(sums_of(case, signed, Arithmetic()), case.sums(x, weight).astype(np.float32))
