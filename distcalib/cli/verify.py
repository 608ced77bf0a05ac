"""`distcalib verify`."""

import argparse

from distcalib.cli.arguments import a_path, add_actors, add_data, add_output, add_state, console_of, example
from distcalib.cli.console import ConsoleReporter
from distcalib.cli.export import add_accept_drop, refuse_shipping, show
from distcalib.session.exporting import ExportOptions, verify

EXAMPLE = (
    "distcalib verify build/ir/model.xml -m examples/digits/digits.prototxt -w examples/digits/digits.caffemodel -i 18"
)


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
    parser.add_argument("-w", "--weights", type=a_path, required=True, help="caffemodel")
    parser.add_argument("-i", "--iterations", type=int, default=10, help="iterations that measure it (default: 10)")
    add_accept_drop(parser)
    add_data(parser)
    add_state(parser)
    add_actors(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify; exit code 2 if the file scores worse than the prototxt by more than accepted."""
    options = ExportOptions(
        iterations=args.iterations,
        accept_drop=args.accept_drop,
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
        found = verify(args.file, args.model, args.weights, options, reporter=reporter)
    return show((found,), args, console)
