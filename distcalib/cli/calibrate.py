"""`distcalib calibrate`: the flags of the predecessor, spelled the same, and ours."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.run_record import Interrupted
from distcalib.cli.arguments import (
    a_loss,
    a_path,
    add_detection,
    add_iterations,
    add_model,
    add_output,
    add_reading,
    add_root,
    add_telling,
    console_of,
    detection_of,
    example,
    iterations_of,
    memory_line,
    model_of,
)
from distcalib.cli.config import add_config
from distcalib.cli.console import draws, reporting, say, tell
from distcalib.cli.exit_codes import BELOW_FLOOR, OK, interrupted_by
from distcalib.cli.outcome import show_outcome
from distcalib.errors import OptionError, printable
from distcalib.report import CalibrationReport, exported_lines
from distcalib.search import STRATEGIES
from distcalib.session.export_options import TARGETS

EXAMPLE = (
    "distcalib calibrate -m examples/digits/digits.prototxt -w examples/digits/digits.caffemodel "
    "-n accuracy-top1 -l 0.005 --out build/demo"
)

# Flags of the predecessor that have no meaning here yet: refused by name, because a flag that is silently ignored
# gives a file that the user did not ask for.
NOT_YET: tuple[tuple[tuple[str, ...], bool, str], ...] = (
    (("-wi", "--conv_algo"), False, "crashed in the predecessor's last release and is not supported; leave it out"),
)

# Flags that are on or off; the long name is that of the option.
SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("-ss", "sampling_single", "take the ranges from the last sampled iteration alone"),
    ("-q", "quantize_model", "write the quantized prototxt, measure nothing"),
    ("-p", "performance_model", "write MODEL_dummy.prototxt with all scales 1.0, for speed runs only"),
    ("-u", "unsigned_range", "255 in place of 127 in scale_out of convolutions without ReLU"),
    ("-t", "concat_use_fp32", "convolutions that feed a Concat get FP32 output"),
    ("-f", "unify_concat_scales", "convolutions that feed one Concat share the smallest scale_out"),
    ("-1st", "enable_1st_conv", "quantize the first convolution too, as s8 input"),
    ("-fu", "first_conv_force_u8", "quantize the first convolution on u8 input instead; writes a new caffemodel, too"),
    ("-clx", "clx", "with -fu: the target has VNNI, so its weights keep their full scale"),
    ("-uff", "disable_force_fp32", "INT8 output even where no INT8 consumer follows"),
    ("-ucac", "disable_cac_unify", "no common scale across convolution, average pooling, convolution"),
    ("-fc", "fc_int8", "quantize InnerProduct too"),
)


class Refuse(argparse.Action):
    """An option that is known and refused, with the reason."""

    def __init__(self, option_strings: Sequence[str], dest: str, reason: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, **kwargs)
        self.reason = reason

    def __call__(self, parser: object, namespace: object, values: object, option_string: str | None = None) -> None:
        """Say no."""
        raise OptionError(f"{option_string}: {self.reason}")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "calibrate",
        help="quantize a net so that it loses at most -l, and write the file that was measured",
        epilog=f"known and refused, not supported yet: {' '.join(f[0] for f, _, _ in NOT_YET)}\n\n{example(EXAMPLE)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser)
    _add_goal(parser)
    add_detection(parser)
    _add_scales(parser)
    _add_weights(parser)
    _add_search(parser)
    add = parser.add_argument
    add("--out", type=a_path, metavar="DIR", help="folder of the results (default: the prototxt's)")
    add(
        "--export",
        action="append",
        default=[],
        choices=TARGETS,
        help="write the net as OpenVINO IR or ONNX too, measured in its own runtime; repeatable",
    )
    add(
        "--no-thumbnails",
        action="store_true",
        help="no pictures of lost images in the report, which may be sent to who must not see the data",
    )
    add(
        "--allow-overwritten",
        action="store_true",
        help="calibrate a net whose layers in place Caffe refuses or overwrite what they still read",
    )
    add_reading(parser)
    add_root(parser)
    add_config(parser)
    add_telling(parser)
    add_output(parser)
    _add_refused(parser)
    parser.set_defaults(run=run)


def _add_goal(parser: argparse.ArgumentParser) -> None:
    """What is measured, and what may be lost."""
    defaults, add = CalibrationOptions(), parser.add_argument
    add_iterations(parser, like_intel=True)
    add("-n", "--blob_name", help="top blob that is the score (default: the Accuracy with the smallest top_k)")
    add(
        "-l",
        "--accuracy_loss",
        type=a_loss,
        default=defaults.accuracy_loss,
        help="tolerated loss, absolute (default: 0.01)",
    )


def _add_scales(parser: argparse.ArgumentParser) -> None:
    """What the scales are made of, and which layers get some."""
    defaults, add = CalibrationOptions(), parser.add_argument
    add(
        "-c",
        "--weights_channel",
        choices=("single", "multiple"),
        default=defaults.weights_channel,
        help="one weight scale a layer, or one an output channel (default: single)",
    )
    add(
        "-s",
        "--sampling_iterations",
        type=int,
        default=defaults.sampling_iterations,
        help="iterations sampled for the ranges (default: 10)",
    )
    add(
        "-a",
        "--calibration_algos",
        default=defaults.calibration_algos,
        help="what a scale is made of: DIRECT the largest value seen (default), MA a moving average of it, MAXP its "
        "99.995th percentile, KL and MSE the threshold of least divergence or squared error; auto chooses among them "
        "for each blob, by the error at the net's output on the sampled iterations",
    )
    for short, name, text in SWITCHES:
        add(short, f"--{name}", action="store_true", help=text)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    """What may be done to the weights."""
    defaults, add = CalibrationOptions(), parser.add_argument
    add(
        "--bias-correction",
        action="store_true",
        help="take the mean error of each INT8 layer out of its bias; writes a new caffemodel, too",
    )
    add(
        "--equalize",
        action="store_true",
        help="scale the channels between two layers so that the weights of both fit INT8; writes a new caffemodel, too",
    )
    add(
        "--recover",
        nargs="?",
        const="on",
        default=defaults.recover,
        choices=("auto", "on", "off"),
        help="new weights that fit INT8 better, in a new caffemodel: auto tries --bias-correction and, if need be, "
        "--equalize, where all layers in INT8 lose too much, and keeps them if less is lost (default); on, or "
        "--recover alone, does both in any case; off keeps the caffemodel as it is",
    )
    add("--keep-weights", dest="recover", action="store_const", const="off", help="--recover off")
    add(
        "--count-saved",
        action="store_true",
        help="find out how many FP32 layers the new weights save, by a search without each; costs those searches",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """How layers that must fall back are found."""
    defaults, add = CalibrationOptions(), parser.add_argument
    add(
        "--strategy",
        metavar="NAME",
        default=defaults.strategy,
        help=f"how layers that must fall back are found: {', '.join(STRATEGIES)}, or one of a plugin (default: ranked)",
    )
    add(
        "--confidence",
        type=float,
        metavar="P",
        help="stop measuring a candidate once a paired test against FP32 is this certain, such as 0.999; the delivered "
        "net is always measured in full (default: when the rest of the data cannot change the verdict)",
    )
    add("--keep-int8", action="append", default=[], metavar="LAYER", help="never return these layers (a glob) to FP32")
    add("--keep-fp32", action="append", default=[], metavar="LAYER", help="leave these layers (a glob) in FP32")
    add("--max-candidates", type=int, metavar="N", help="decide about N candidates at the most, then deliver the best")
    add("--max-time", type=float, metavar="SECONDS", help="begin no more candidates after this time of searching")
    add(
        "--by-time",
        action="store_true",
        help="of layers that do as well, leave those INT8 that save most measured time "
        "(default: most multiply-adds, which are the same in every run)",
    )
    add("--pareto", action="store_true", help="measure choices from all INT8 to all FP32, too: accuracy against speed")


def _add_refused(parser: argparse.ArgumentParser) -> None:
    """Flags that are known and refused."""
    for flags, takes_value, reason in NOT_YET:
        parser.add_argument(
            *flags,
            action=Refuse,
            reason=reason,
            nargs=None if takes_value else 0,
            dest="refused",
            help=argparse.SUPPRESS,
        )


def curve_table(report: CalibrationReport) -> Table:
    """--pareto: a line a choice, from the fastest on; what is best of its speed is marked, and what was delivered."""
    metric = escape(printable(report.metric))
    table = Table("", metric, "drop", "images/s an actor", "layers in FP32", box=box.SIMPLE_HEAD)
    for column in table.columns[1:4]:
        column.justify, column.no_wrap = "right", True
    for point in report.pareto:
        mark = ("*" if point.optimal else "") + (">" if point.fp32_layers == report.fp32_layers else "")
        names = ", ".join(point.fp32_layers[:4]) + (", ..." if len(point.fp32_layers) > 4 else "")
        layers = f"{len(point.fp32_layers)}: {names}" if names else "none"
        cells = (f"{point.score:.6g}", f"{point.drop:.6g}", f"{point.images_per_second:,.0f}")
        table.add_row(mark, *cells, escape(printable(layers)))
    table.caption = "* no faster choice loses as little, > delivered; images/s are predicted"
    table.caption_justify = "left"
    return table


def options_of(args: argparse.Namespace) -> CalibrationOptions:
    """What the flags ask for."""
    args.iterations, args.detection = iterations_of(args), detection_of(args)
    args.keep_int8, args.keep_fp32 = tuple(args.keep_int8), tuple(args.keep_fp32)
    args.plugins = tuple(args.plugins)
    args.export = tuple(dict.fromkeys(args.export))
    if args.recover == "on":
        args.equalize = args.bias_correction = True
        args.recover = "auto"  # nothing is left to try
    given = {field.name: getattr(args, field.name) for field in fields(CalibrationOptions) if hasattr(args, field.name)}
    return CalibrationOptions(**given, n_actors=args.actors)


def run(args: argparse.Namespace) -> int:
    """Calibrate; the last line is the verdict."""
    options = options_of(args)
    console = console_of(args)
    interrupted = False
    with reporting(args, console, searches=True) as reporter:
        try:
            report = calibrate(model_of(args), args.weights, options, reporter=reporter)
        except Interrupted as interrupt:
            report, interrupted = interrupt.report, True
    if args.json:
        print(report.to_json(), end="")
    else:
        if report.pareto:
            console.print(curve_table(report))
        for warning in report.warnings:
            tell(console, f"warning: {warning}")
        if report.fp32_layers and not draws(console):
            say(console, f"in FP32 again: {', '.join(report.fp32_layers)}")
        if report.bad_records is not None and report.bad_records.count:
            say(console, report.bad_records.line)
        if report.n_retired:
            say(console, memory_line(report.n_retired))
        for line in (line for one in report.exported for line in exported_lines(one)):
            say(console, line)
        if draws(console):
            show_outcome(report, console)
        say(console, report.verdict)
    if interrupted:
        return interrupted_by()
    refused = any(one.refused for one in report.exported)
    return BELOW_FLOOR if report.met is False or refused else OK
