"""What a net must be to be calibrated, and the score that it is calibrated by."""

from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import Net
from distcalib.errors import OptionError, UnsupportedError
from distcalib.metrics import choose_score, is_map, is_mean, lower_is_better
from distcalib.session.checks import net_problems
from distcalib.session.in_place import refuse_in_place


def refuse_quantized(net: Net) -> None:
    """Raise UnsupportedError for a net that is quantized already: its scores would be taken for those of FP32."""
    names = [layer.name for layer in net.full.layer if layer.HasField("quantization_param")]
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:3])
        others = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UnsupportedError(
            f"{net.name}: is quantized already (quantization_param in {shown}{others}); "
            "give the FP32 prototxt that it was made from"
        )


def checked_metric(net: Net, options: CalibrationOptions) -> str:
    """The score to go by.  Raises UnsupportedError or OptionError with all that keeps the net from being run by it."""
    # -p runs nothing, so that an Input layer needs no data.
    problems = net_problems(net, fed=options.data is not None or options.performance_model)
    try:
        metric = _metric(net, options)
    except (OptionError, UnsupportedError) as error:
        if not problems:
            raise
        if isinstance(error, OptionError):  # the other is among those found
            problems.append(str(error))
        raise UnsupportedError("; ".join(problems)) from None
    if problems:
        raise UnsupportedError("; ".join(problems))
    if not options.allow_overwritten:
        refuse_in_place(net)
    return metric


def _metric(net: Net, options: CalibrationOptions) -> str:
    """The score to go by; what choose_score raises, with the file's name.

    Where nothing is measured (-q, -p) a net needs no score: "" then.  Raises OptionError too for a tolerance of more
    than an accuracy can lose.
    """
    try:
        metric = choose_score(net.test, options.blob_name, options.detection)
    except OptionError as error:
        if options.blob_name is None and (options.quantize_model or options.performance_model):
            return ""
        raise OptionError(f"{net.name}: {error}") from None
    if options.confidence is not None and not is_mean(net.test, metric):
        what = "an mAP" if is_map(net.test, metric) else "a mean IoU"
        raise OptionError(
            f"{net.name}: --confidence {options.confidence:g}: compares iterations, and '{metric}' is {what}, "
            "which is not a mean of them; leave it out"
        )
    if options.accuracy_loss > 1.0 and not lower_is_better(net.test, metric):
        raise OptionError(
            f"-l {options.accuracy_loss:g}: is more than the accuracy '{metric}' can lose, which is at most 1; 0.01 "
            "tolerates one point"
        )
    return metric
