"""The log of `caffe test`: its values, and everything that makes it no such log."""

import math

import numpy as np
import pytest

from distcalib.engine.glog import CaffeLog, Output
from distcalib.errors import EngineError

PREFIX = "I1122 10:11:12.131415  4711 "

# The lines of the facts file, among others of a real log.
RECORDED = f"""\
{PREFIX}caffe.cpp:422] Use CPU.
{PREFIX}cpu_info.cpp:453] Processor speed [MHz]: 2600
{PREFIX}net.cpp:261] Creating Layer accuracy-top1
{PREFIX}caffe.cpp:474] Running for 2 iterations.
OMP: Info #154: KMP_AFFINITY: Initial OS proc set respected: 0
{PREFIX}caffe.cpp:506] Batch 0, accuracy-top1 = 0.8
{PREFIX}caffe.cpp:506] Batch 0, loss = 0.533293
{PREFIX}caffe.cpp:506] Batch 1, accuracy-top1 = 0.84
{PREFIX}caffe.cpp:506] Batch 1, loss = 1.5e-05
{PREFIX}caffe.cpp:511] Loss: 0.266654
{PREFIX}caffe.cpp:523] accuracy-top1 = 0.82
{PREFIX}caffe.cpp:523] loss = 0.266654 (* 1 = 0.266654 loss)
"""


def read(text: str) -> CaffeLog:
    log = CaffeLog("net.prototxt")
    for line in text.splitlines(keepends=True):
        log.feed(line)
    return log


def test_log_gives_the_numbers_of_each_batch() -> None:
    log = read(RECORDED)
    log.check(2, ["accuracy-top1", "loss"])
    assert log.batches == [
        {"accuracy-top1": Output(0.8, 1), "loss": Output(0.533293, 1)},
        {"accuracy-top1": Output(0.84, 1), "loss": Output(1.5e-05, 1)},
    ]
    assert log.fatal == ""


def test_log_sums_the_numbers_of_a_blob() -> None:
    """An output of several numbers has a line each, in the batches and at the end."""
    log = read(
        "".join(f"{PREFIX}caffe.cpp:1] Batch {i}, prob = {i + k}\n" for i in range(2) for k in (0.25, 0.5, 3))
        + f"{PREFIX}caffe.cpp:2] Loss: 0\n"
        + "".join(f"{PREFIX}caffe.cpp:3] prob = {0.5 + k}\n" for k in (0.25, 0.5, 3))
    )
    log.check(2, ["prob"])
    assert log.batches == [{"prob": Output(3.75, 3)}, {"prob": Output(6.75, 3)}]


@pytest.mark.parametrize("text", ["nan", "-nan", "inf"])
def test_log_takes_a_loss_that_is_none(text: str) -> None:
    log = read(RECORDED.replace("0.533293", text).replace("0.266654", text))
    log.check(2, ["loss"])
    assert not math.isfinite(log.batches[0]["loss"].total)


def test_log_allows_for_the_digits_that_are_not_printed() -> None:
    """Six digits of the batches, six of the mean, and the mean's sum in float32."""
    values = np.random.RandomState(0).uniform(0, 3, 20000).astype(np.float32)
    total = np.float32(0)
    for value in values:
        total += value
    lines = [f"{PREFIX}caffe.cpp:506] Batch {i}, loss = {value:.6g}\n" for i, value in enumerate(values)]
    mean = total / np.float32(len(values))
    end = f"{PREFIX}caffe.cpp:511] Loss: {mean:.6g}\n{PREFIX}caffe.cpp:523] loss = {mean:.6g} (* 1 = {mean:.6g} loss)\n"
    read("".join(lines) + end).check(len(values), ["loss"])


def test_log_remembers_the_first_fatal_line() -> None:
    log = read(
        f"{RECORDED}F0303 10:32:18.867789 30760 blob.cpp:121] Check failed: data_ [x] \n"
        "F0303 10:32:18.867790 30761 other.cpp:1] Second\n"
        "*** Check failure stack trace: ***\n    @ 0x7f google::Fail()\n"
    )
    assert log.fatal == "Check failed: data_ [x]"
    assert log.last == "    @ 0x7f google::Fail()"


def without(*parts: str) -> str:
    return "".join(line for line in RECORDED.splitlines(True) if not any(part in line for part in parts))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "it has 0 of 2 batches", id="empty"),
        pytest.param("\x00]] = [[ Batch 0, loss = 1\n", "it has 0 of 2 batches", id="garbage"),
        pytest.param(without("Batch 1", "Loss", "523]"), "it has 0 of 2 batches", id="killed_in_the_second"),
        pytest.param(without("Batch 1"), "it has 1 of 2 batches", id="one_batch_too_few"),
        pytest.param(
            RECORDED.replace("caffe.cpp:511", f"caffe.cpp:506] Batch 2, loss = 1\n{PREFIX}caffe.cpp:511"),
            "it has 3 of 2 batches", id="one_too_many",
        ),
        pytest.param(without("Batch 0"), "batch 1 stands where 0 is due", id="starts_late"),
        pytest.param(without("Batch 1, loss"), "not all batches have the same outputs", id="an_output_less"),
        pytest.param(without("loss"), "it has no 'loss'", id="never_an_output"),
        pytest.param(without("523]"), "the means at its end are not those of the batches' outputs", id="no_means"),
        pytest.param(
            RECORDED.replace("523] accuracy-top1 = 0.82", "523] accuracy-top1 = 0.82001"),
            "the mean of 'accuracy-top1' at its end is not that of its batches", id="another_mean",
        ),
        pytest.param(
            RECORDED.replace("523] loss = 0.266654", "523] loss = nan"),
            "the mean of 'loss' at its end is not that of its batches", id="mean_nan",
        ),
        pytest.param(RECORDED.replace("0.84", "0.8x"), "'accuracy-top1' is '0.8x', which is not a number", id="nan"),
    ],
)  # fmt: skip
def test_log_check_says_what_is_wrong(text: str, said: str) -> None:
    log = read(text)
    with pytest.raises(EngineError) as error:
        log.check(2, ["accuracy-top1", "loss"])
    assert str(error.value).startswith(f"net.prototxt: the log of Intel Caffe is not that of a test: {said} (its last")
    assert str(error.value).endswith("is ROOT/tools/caffe a release of Intel Caffe?")


def test_log_that_breaks_off_before_the_means() -> None:
    log = read(without("Loss", "523]") + f"{PREFIX}caffe.cpp:506] Batch 2, accuracy-top1 = 1\n")
    with pytest.raises(EngineError, match="it breaks off before the means"):
        log.check(2, ["loss"])


def test_log_of_a_detection_test_has_the_map_of_each_output() -> None:
    log = CaffeLog("net.prototxt")
    for line in (
        "I1122 10:11:12.131415  77 caffe.cpp:400] Running for 8 iterations.",
        "I1122 10:11:12.131415  77 caffe.cpp:441]     Test net output #0: detection_eval = 0.121716",
        "I1122 10:11:12.131415  77 caffe.cpp:441]     Test net output #1: other = 1",
    ):
        log.feed(line + "\n")
    assert log.detected == {"detection_eval": 0.121716, "other": 1.0}
    log.check_detected(["detection_eval", "other"])
    with pytest.raises(EngineError, match="is not that of a test: it has no mAP of 'third'"):
        log.check_detected(["detection_eval", "third"])


@pytest.mark.parametrize(
    ("value", "said"), [("x", "'map' is 'x', which is not a number"), ("nan", "it has no mAP of 'map'")]
)
def test_log_of_a_detection_test_with_another_value_is_refused(value: str, said: str) -> None:
    log = CaffeLog("net.prototxt")
    log.feed(f"I1122 10:11:12.131415  77 caffe.cpp:441]     Test net output #0: map = {value}")
    with pytest.raises(EngineError, match=said):
        log.check_detected(["map"])
