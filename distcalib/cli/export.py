"""`distcalib export`."""

import argparse

from rich.console import Console

from distcalib.cli.arguments import (
    a_path,
    add_actors,
    add_data,
    add_model,
    add_output,
    add_state,
    console_of,
    example,
    model_of,
)
from distcalib.cli.console import ConsoleReporter
from distcalib.cli.exit_codes import BELOW_FLOOR, OK
from distcalib.errors import OptionError
from distcalib.export.building import DYNAMIC
from distcalib.export.preprocess import FORMS
from distcalib.report import ExportedFile, exported_json, exported_lines
from distcalib.session.exporting import ACCEPTED_DROP, TARGETS, ExportOptions, export

EXAMPLE = (
    "distcalib export examples/digits/digits.prototxt -w examples/digits/digits.caffemodel -i 18 "
    "--to openvino --out build/ir"
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
    add_model(parser)
    parser.add_argument(
        "--to",
        action="append",
        choices=TARGETS,
        required=True,
        help="openvino: model.xml and model.bin; onnx: model.onnx",
    )
    parser.add_argument("--out", type=a_path, required=True, metavar="DIR", help="folder of the files")
    parser.add_argument("-i", "--iterations", type=int, default=10, help="iterations that measure them (default: 10)")
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
    add_accept_drop(parser)
    add_data(parser)
    add_state(parser)
    add_actors(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def add_accept_drop(parser: argparse.ArgumentParser) -> None:
    """What a file may lose."""
    parser.add_argument(
        "--accept-drop",
        type=float,
        metavar="X",
        help=f"a file that scores worse than the prototxt by more is refused "
        f"(default: {ACCEPTED_DROP['openvino']} IR, {ACCEPTED_DROP['onnx']} ONNX)",
    )


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
    options = ExportOptions(
        to=tuple(dict.fromkeys(args.to)),
        out=args.out,
        iterations=args.iterations,
        outputs=None if args.outputs is None else tuple(args.outputs),
        batch=args.batch,
        accept_drop=args.accept_drop,
        preprocess=args.preprocess,
        data=args.data,
        stages=tuple(args.stages),
        level=args.level,
        n_actors=args.actors,
        cores_per_actor=args.cores_per_actor,
        address=args.address,
    )
    refuse_shipping(args)
    console = console_of(args)
    with ConsoleReporter(console) as reporter:
        found = export(model_of(args), args.weights, options, reporter=reporter)
    return show(found, args, console)


def refuse_shipping(args: argparse.Namespace) -> None:
    """Raise OptionError for --ship-data, which is for long runs."""
    if args.ship_data:
        raise OptionError("--ship-data: is for calibrate and evaluate; leave it out")


def show(found: tuple[ExportedFile, ...], args: argparse.Namespace, console: Console) -> int:
    """Print what was found; the exit code."""
    if args.json:
        print(exported_json(found), end="")
    else:
        for line in (line for one in found for line in exported_lines(one)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return BELOW_FLOOR if any(one.refused for one in found) else OK
