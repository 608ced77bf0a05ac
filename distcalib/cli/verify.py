"""`distcalib verify`."""

import argparse

from distcalib.caffe.belonging import belonging_named
from distcalib.cli.arguments import WEIGHTS_HELP, a_path, add_output, add_telling, console_of, example, weights_of
from distcalib.cli.console import reporting
from distcalib.cli.export import add_measuring, show
from distcalib.session.export_options import ExportOptions
from distcalib.session.verify import verify

EXAMPLE = "distcalib verify build/ir/model.xml -m examples/digits/digits.prototxt -w examples/digits/digits.caffemodel"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="measure an exported file beside its prototxt, on this machine",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=a_path, metavar="FILE", help="model.xml or model.onnx")
    parser.add_argument("-m", "--model", type=a_path, required=True, help="prototxt that the file was exported from")
    parser.add_argument("-w", "--weights", type=a_path, help=WEIGHTS_HELP)
    add_measuring(parser)
    add_telling(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify; exit code 2 if the file scores worse than the prototxt by more than accepted."""
    options = ExportOptions.of(args, n_actors=args.actors)
    console = console_of(args)
    weights = weights_of(args, args.model)
    with belonging_named(args.model, weights), reporting(args, console) as reporter:
        result = verify(args.file, args.model, weights, options, reporter=reporter)
    return show((result,), args, console)
