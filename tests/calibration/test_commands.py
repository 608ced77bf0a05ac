"""The commands of a report: the same run again, and what may be run with its files."""

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from distcalib.calibration.commands import commands_of
from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.calibrate import options_of
from distcalib.cli.main import make_parser

CHANGED = {
    "iterations": 18,
    "blob_name": "-top 1",
    "accuracy_loss": 0.1 + 0.2,
    "detection": True,
    "ap_version": "Integral",
    "sampling_iterations": 3,
    "sampling_single": True,
    "calibration_algos": "auto",
    "bias_correction": True,
    "equalize": True,
    "recover": "off",
    "count_saved": True,
    "strategy": "greedy",
    "confidence": 0.999,
    "max_candidates": 7,
    "max_time": 2.5,
    "by_time": True,
    "pareto": True,
    "skip_bad_records": True,
    "allow_overwritten": True,
    "largest_mb": 77,
    "isa": "skylake",
    "data": Path("a b.npz"),
    "stages": ("one", "two"),
    "level": 2,
    "out": Path("it's/out"),
    "n_actors": 3,
    "cores_per_actor": 2,
    "address": "auto",
    "ship_data": True,
    "no_thumbnails": True,
    "weights_channel": "multiple",
    "enable_1st_conv": True,
    "fc_int8": True,
    "unsigned_range": True,
    "concat_use_fp32": True,
    "unify_concat_scales": True,
    "disable_force_fp32": True,
    "disable_cac_unify": True,
    "keep_int8": ("a*", "-b"),
    "keep_fp32": ("c[12]",),
    "export": ("openvino",),
}
OTHERS = (
    {"first_conv_force_u8": True, "clx": True},
    {"performance_model": True},
    {"quantize_model": True},
    {"root": Path("build")},
    {"plugins": ("json",)},
)


def parsed(command: str) -> tuple[str, CalibrationOptions]:
    program, *argv = shlex.split(command)
    assert program == "distcalib"
    args = make_parser().parse_args(argv)
    assert str(args.weights) == "-w.caffemodel"
    return args.command, options_of(args)


@pytest.mark.parametrize("changes", [CHANGED, *OTHERS, {}], ids=lambda changes: next(iter(changes), "none"))
def test_the_command_of_a_run_asks_for_its_options(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTCALIB_LARGEST_MB", "77")
    options = CalibrationOptions(**changes)  # type: ignore[arg-type]
    found = commands_of("a net.prototxt", "-w.caffemodel", "net_quantized.prototxt", None, options)
    assert parsed(found["calibrate"]) == ("calibrate", options)


def test_every_option_is_tried() -> None:
    tried = {*CHANGED, *(name for one in OTHERS for name in one)}
    assert sorted(tried) == sorted(field.name for field in fields(CalibrationOptions))


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_what_is_run_next_reads_the_files_of_the_run(name: str) -> None:
    options = CalibrationOptions(iterations=18, data=Path("x.npz"), accuracy_loss=0.5, pareto=True)
    found = commands_of("net.prototxt", "given.caffemodel", "out dir/n.prototxt", "new.caffemodel", options)
    args = make_parser().parse_args(shlex.split(found[name])[1:])
    assert (args.command, str(args.model), str(args.weights)) == (name, "out dir/n.prototxt", "new.caffemodel")
    assert (args.iterations, str(args.data)) == (18, "x.npz")


def test_a_net_for_speed_runs_is_neither_evaluated_nor_exported() -> None:
    options = CalibrationOptions(performance_model=True)
    assert list(commands_of("net.prototxt", "net.caffemodel", "out.prototxt", None, options)) == ["calibrate"]
