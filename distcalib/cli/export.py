"""`distcalib export`."""

import argparse

from rich.console import Console

from distcalib.caffe.belonging import belonging_named
from distcalib.cli.arguments import (
    WEIGHTS_HELP,
    a_path,
    add_iterations,
    add_model,
    add_output,
    add_reading,
    add_telling,
    console_of,
    example,
    model_of,
    weights_of,
)
from distcalib.cli.config import add_config
from distcalib.cli.console import reporting, say
from distcalib.cli.exit_codes import BELOW_FLOOR, OK
from distcalib.exporters.building import DYNAMIC
from distcalib.exporters.preprocess import FORMS
from distcalib.report import ExportedFile, exported_json, exported_lines
from distcalib.session.export import export
from distcalib.session.export_options import ACCEPTED_DROP, TARGETS, ExportOptions

EXAMPLE = (
    "distcalib export examples/digits/digits.prototxt -w examples/digits/digits.caffemodel --to openvino --out build/ir"
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="write a prototxt, quantized or not, as OpenVINO IR or ONNX, and measure the file",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser, weights_required=False, weights_help=WEIGHTS_HELP)
    parser.add_argument(
        "--to",
        action="append",
        choices=TARGETS,
        required=True,
        help="openvino: model.xml and model.bin; onnx: model.onnx",
    )
    parser.add_argument("--out", type=a_path, required=True, metavar="DIR", help="folder of the files")
    parser.add_argument(
        "--outputs",
        action="append",
        metavar="BLOB",
        help="a blob that goes out; repeatable (default: the net's ends, and what its scores read)",
    )
    parser.add_argument(
        "--batch", type=a_batch, metavar="N|dynamic", help="batch size (default: dynamic where the net allows it)"
    )
    parser.add_argument(
        "--preprocess",
        metavar="LAYOUT-COLOURS",
        help=f"take u8 images, and do inside what the data layer does: {', '.join(FORMS)}",
    )
    add_measuring(parser)
    add_config(parser)
    add_telling(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """How a file is measured, and what it may lose."""
    add_iterations(parser)
    parser.add_argument(
        "--accept-drop",
        type=float,
        metavar="X",
        help=f"a file that scores worse than the prototxt by more is refused "
        f"(default: {ACCEPTED_DROP['openvino']} IR, {ACCEPTED_DROP['onnx']} ONNX)",
    )
    add_reading(parser)


def a_batch(text: str) -> int | str:
    """A size, or dynamic."""
    if text == DYNAMIC:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor dynamic") from None


def run(args: argparse.Namespace) -> int:
    """Export; exit code 2 if a file is refused."""
    options = ExportOptions.of(args, to=tuple(dict.fromkeys(args.to)), n_actors=args.actors)
    console = console_of(args)
    model = model_of(args)
    weights = weights_of(args, model)
    with belonging_named(model, weights), reporting(args, console) as reporter:
        result = export(model, weights, options, reporter=reporter)
    return show(result, args, console)


def show(found: tuple[ExportedFile, ...], args: argparse.Namespace, console: Console) -> int:
    """Print what was found; the exit code."""
    if args.json:
        print(exported_json(found), end="")
    else:
        bad = next((one.bad_records for one in found), None)
        lines = [line for one in found for line in exported_lines(one)]
        for line in (*lines, *([bad.line] if bad is not None and bad.count else [])):
            say(console, line)
    return BELOW_FLOOR if any(one.refused for one in found) else OK
