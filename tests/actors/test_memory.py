"""The estimate against what was measured by scripts/bench/bench_memory.py and in a run; MB."""

import pytest

from distcalib.actors.memory import BASE_BYTES, actor_bytes

MB = 2**20
#: Weights, largest blob, and the peak of a process that compiled and ran it, 120 MB for Ray added.
MEASURED = {
    "mobilenet FP32 batch 1": (16, 3, 313),
    "mobilenet FP32 batch 50": (16, 153, 591),
    "inception FP32 batch 10": (91, 53, 652),
    "inception FP32 batch 50": (91, 264, 992),
    "resnet50 FP32 batch 1": (98, 3, 596),
    "resnet50 FP32 batch 50": (98, 153, 844),
    "vgg16 FP32 batch 1": (528, 12, 2177),
    "resnet20 actor batch 100": (1, 7, 223),
}


@pytest.mark.parametrize(("weights", "largest", "peak"), MEASURED.values(), ids=list(MEASURED))
def test_actor_bytes_is_enough_and_not_far_too_much(weights: int, largest: int, peak: int) -> None:
    estimate = actor_bytes(weights * MB, [MB, largest * MB, 0]) / MB
    assert peak <= estimate <= 1.7 * peak


def test_actor_bytes_of_nothing_is_the_base() -> None:
    assert actor_bytes(0, []) == BASE_BYTES
