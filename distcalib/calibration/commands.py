"""A calibration as a command, and what can be run next with its files, to be copied from the report."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from distcalib.calibration.options import CalibrationOptions
from distcalib.session.flag_words import flag_words

_SPELLED: Mapping[str, str] = {
    "iterations": "-i",
    "blob_name": "-n",
    "accuracy_loss": "-l",
    "detection": "-d",
    "weights_channel": "-c",
    "sampling_iterations": "-s",
    "calibration_algos": "-a",
    "sampling_single": "-ss",
    "quantize_model": "-q",
    "performance_model": "-p",
    "unsigned_range": "-u",
    "concat_use_fp32": "-t",
    "unify_concat_scales": "-f",
    "enable_1st_conv": "-1st",
    "first_conv_force_u8": "-fu",
    "clx": "-clx",
    "disable_force_fp32": "-uff",
    "disable_cac_unify": "-ucac",
    "fc_int8": "-fc",
    "root": "-r",
    "n_actors": "--actors",
    "plugins": "--plugin",
    "stages": "--stage",
}
"""The flags that are not the option's name."""
_OF_THE_NET = ("ap_version", "data", "plugins", "stages", "level", "skip_bad_records", "largest_mb", "isa")
"""Options without which another command would run another net, other data, or another CPU's integers."""
_OF_THE_RUN = ("n_actors", "cores_per_actor", "address", "ship_data")
_ALWAYS = ("iterations",)
"""Options that are said even where they are the default."""


def commands_of(
    model: str, weights: str, output: str, output_weights: str | None, options: CalibrationOptions
) -> dict[str, str]:
    """By name the command of a run, which wrote `output` and maybe `output_weights`, and what may be run next."""
    commands = {"calibrate": calibrate_command(model, weights, options)}
    if not options.performance_model:  # what it writes is for speed runs only
        commands["evaluate"] = evaluate_command(output, output_weights or weights, options)
        commands["export"] = export_command(output, output_weights or weights, options)
    return commands


def calibrate_command(model: str, weights: str, options: CalibrationOptions) -> str:
    """What `distcalib calibrate` is called with for the same run."""
    names = (field.name for field in fields(options))
    return _command("calibrate", model, weights, _flags(options, names))


def evaluate_command(model: str, weights: str, options: CalibrationOptions) -> str:
    """What measures the net `model` again."""
    names = ("iterations", "detection", *_OF_THE_NET, "root", *_OF_THE_RUN)
    return _command("evaluate", model, weights, _flags(options, names))


def export_command(model: str, weights: str, options: CalibrationOptions) -> str:
    """What writes the net `model` as OpenVINO has it, beside it."""
    folder = ("--to", "openvino", "--out", str(Path(model).parent))
    flags = _flags(options, ("iterations", *_OF_THE_NET, *_OF_THE_RUN))
    return _command("export", model, weights, (*folder, *flags))


def _command(name: str, model: str, weights: str, flags: Iterable[str]) -> str:
    return shlex.join(["distcalib", name, *flag_words("-m", model), *flag_words("-w", weights), *flags])


def _flags(options: CalibrationOptions, names: Iterable[str]) -> Iterator[str]:
    """Those of `names` that are not the default, as flags."""
    defaults = CalibrationOptions()
    for name in names:
        value = getattr(options, name)
        if value is None or (name not in _ALWAYS and value == getattr(defaults, name)):
            continue
        flag = _SPELLED.get(name, "--" + name.replace("_", "-"))
        if name == "detection":
            yield from (flag, "1")
        elif value is True:
            yield flag
        else:
            for one in value if isinstance(value, tuple) else (value,):
                yield from flag_words(flag, one)
