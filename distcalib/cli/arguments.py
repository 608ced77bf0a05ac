"""Options that several commands share, each declared once."""

import argparse
import os
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from distcalib.actors.isa import ISAS
from distcalib.caffe.belonging import belonging_weights
from distcalib.data import FLAG
from distcalib.data.limits import DEFAULT_MB as LARGEST_DEFAULT
from distcalib.data.limits import FLAG as LARGEST_FLAG
from distcalib.data.limits import VARIABLE as LARGEST_VARIABLE
from distcalib.errors import DistcalibError, OptionError
from distcalib.metrics import AP_VERSIONS, DEFAULT_AP
from distcalib.report import read_report


def a_path(text: str) -> Path:
    """A path from the command line; Path("") would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return Path(text)


def a_number_or_auto(text: str) -> int | None:
    """A whole number, or None for auto."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor auto") from None


def a_loss(text: str) -> float:
    """What may be lost: a number, no percentage."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; 0.01 is one point of accuracy or mAP") from None


def example(*commands: str) -> str:
    """The end of a help text: commands as they can be pasted, on the net that comes with the sources."""
    return "\n".join(["example" if len(commands) == 1 else "examples", *(f"  {command}" for command in commands)])


def add_model(
    parser: argparse.ArgumentParser, weights_required: bool = True, weights_help: str = "FP32 caffemodel"
) -> None:
    """-m as the predecessor has it, or the path alone; -w."""
    parser.add_argument(
        "model_path", nargs="?", type=a_path, metavar="MODEL", help="the prototxt; -m MODEL does the same"
    )
    parser.add_argument("-m", "--model", type=a_path, help="prototxt of the net")
    parser.add_argument("-w", "--weights", type=a_path, required=weights_required, help=weights_help)


def model_of(args: argparse.Namespace) -> Path:
    """The prototxt, however it was given."""
    if (args.model is None) == (args.model_path is None):
        raise OptionError("MODEL: give the prototxt once, as -m MODEL or alone")
    path: Path = args.model or args.model_path
    return path


INTEL_ITERATIONS = 10
"""What Intel's calibrator.py takes without -i."""


def add_iterations(parser: argparse.ArgumentParser, like_intel: bool = False) -> None:
    """How much of the data is scored."""
    parser.add_argument(
        "-i",
        "--iterations",
        type=int,
        metavar="N",
        help="test iterations: images / batch (default: the whole test set, each image once)",
    )
    if like_intel:
        parser.add_argument(
            "--like-intel",
            action="store_true",
            help=f"without -i: {INTEL_ITERATIONS} iterations, as in Intel's calibrator.py",
        )


def iterations_of(args: argparse.Namespace) -> int | None:
    """The iterations that were asked for; None: the whole test set.  Raises OptionError."""
    asked: int | None = args.iterations
    if not args.like_intel:
        return asked
    if asked is not None:
        raise OptionError(f"--like-intel: says what a run without -i takes, and -i {asked} is given; leave out one")
    return INTEL_ITERATIONS


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What is read and how, by which actors: the same for every command that scores."""
    add_ap_version(parser)
    add_data(parser)
    add_plugins(parser)
    add_state(parser)
    add_skipping(parser)
    add_largest(parser)
    add_actors(parser)
    add_isa(parser)


WEIGHTS_HELP = "caffemodel (default: the one that a prototxt of `distcalib calibrate` was measured with)"


def weights_of(args: argparse.Namespace, model: Path) -> Path:
    """The caffemodel: that of -w, else the one that `model` names or that the report beside it is of.

    Raises OptionError where neither tells.
    """
    if args.weights is not None:
        given: Path = args.weights
        return given
    if (named := belonging_weights(model)) is not None:
        return named
    with suppress(DistcalibError):
        report = read_report(model.with_name("report.json"))
        weights = Path(report.output_weights or report.weights)
        if Path(report.output).name == model.name and weights.is_file():
            return weights
    raise OptionError(f"{model}: does not tell which caffemodel it runs with; give it with -w")


def add_data(parser: argparse.ArgumentParser) -> None:
    """What feeds Input layers."""
    parser.add_argument(
        "--data", type=a_path, metavar="FILE", help="arrays of Input and other data layers: .npz by top, or a .npy"
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """Which layers of the TEST phase take part, as `caffe test` has it."""
    parser.add_argument(
        "--stage",
        dest="stages",
        action="extend",
        type=_stages,
        default=[],
        metavar="NAME",
        help="a stage in which the TEST phase runs, beside those of the prototxt; repeatable, or joined by commas",
    )
    parser.add_argument("--level", type=int, default=0, metavar="N", help="the level in which it runs (default: 0)")


def _stages(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def add_largest(parser: argparse.ArgumentParser) -> None:
    """What may be made of a small file; the readers find it in the environment, as those of the actors do."""
    parser.add_argument(
        LARGEST_FLAG,
        type=_limit,
        metavar="MB",
        help=f"megabytes that one image, row or array may take unpacked (default: {LARGEST_DEFAULT})",
    )


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of megabytes")
    os.environ[LARGEST_VARIABLE] = text
    return int(text)


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """--plugin."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        dest="plugins",
        help="import this module, or .py file, here and in every actor: it adds layers, scores, data sources or "
        "strategies (docs/plugins.md); repeatable",
    )


def add_skipping(parser: argparse.ArgumentParser) -> None:
    """What happens to records that cannot be read."""
    parser.add_argument(
        FLAG,
        action="store_true",
        help="leave records out that cannot be read, and count and name them (default: the run ends at the first)",
    )


def add_detection(parser: argparse.ArgumentParser) -> None:
    """Whether the score is an mAP, as the predecessor has it."""
    parser.add_argument(
        "-d",
        "--detection",
        type=int,
        default=0,
        metavar="0|1",
        help="0 classification (default); 1 detection: the score is mAP",
    )


def detection_of(args: argparse.Namespace) -> bool:
    """Raises OptionError for another number."""
    if args.detection not in (0, 1):
        raise OptionError(f"-d {args.detection}: is neither 0, classification, nor 1, detection")
    return bool(args.detection)


def add_ap_version(parser: argparse.ArgumentParser) -> None:
    """How an mAP is taken."""
    parser.add_argument(
        "--ap-version",
        choices=tuple(AP_VERSIONS),
        default=DEFAULT_AP,
        help="how precision over recall becomes an AP (default: 11point, as `caffe test` prints it)",
    )


def add_actors(parser: argparse.ArgumentParser) -> None:
    """How the work is spread."""
    parser.add_argument("--actors", type=int, metavar="N", help="actors that measure (default: one a physical core)")
    parser.add_argument(
        "--cores-per-actor",
        type=a_number_or_auto,
        metavar="N|auto",
        help="physical cores of each; auto, the default: one, and more where memory is short",
    )
    add_address(parser)
    parser.add_argument(
        "--ship-data", action="store_true", help="send the records to the actors, for nodes that cannot open the data"
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Which Ray cluster works."""
    parser.add_argument(
        "--address",
        metavar="auto|HOST:PORT",
        help="of a running Ray cluster; auto: this machine's (default: RAY_ADDRESS, else this machine)",
    )


def add_isa(parser: argparse.ArgumentParser) -> None:
    """Which CPU is measured for."""
    parser.add_argument(
        "--isa",
        choices=ISAS,
        default="native",
        help="compute the integers of this CPU, natively or emulated (default: native, the nearest)",
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """What measures."""
    parser.add_argument(
        "-r",
        "--root",
        type=a_path,
        metavar="ROOT",
        help="build folder of Intel Caffe: measure with ROOT/tools/caffe (default: the embedded engine)",
    )


def add_looking(parser: argparse.ArgumentParser) -> None:
    """What a command takes that looks at a net and runs nothing."""
    add_model(parser, weights_required=False)
    add_data(parser)
    add_plugins(parser)
    add_state(parser)
    add_largest(parser)
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """How results are told."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    parser.add_argument("--verbose", action="store_true", help="show where an error happened")


def add_telling(parser: argparse.ArgumentParser) -> None:
    """Where progress goes."""
    parser.add_argument("--quiet", action="store_true", help="print no progress: the result and warnings alone")
    parser.add_argument(
        "--log-file", type=a_path, metavar="FILE", help="append progress to this file too, a line with the time each"
    )


def console_of(args: argparse.Namespace) -> Console:
    """Where progress goes: stdout, or stderr if stdout is for JSON."""
    return Console(stderr=bool(args.json))


def memory_line(n_retired: int) -> str:
    """That actors were given up, for the end of a run."""
    return f"memory ran out: {n_retired} actor(s) were given up, and others did their work; --actors asks for fewer"
