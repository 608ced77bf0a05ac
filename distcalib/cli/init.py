"""`distcalib init`: the command to run for a prototxt, and what keeps it from being run."""

import argparse
import json

from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.arguments import add_looking, console_of, example, model_of
from distcalib.cli.console import say
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.session.proposal import Proposal, propose

_COLUMN = 24
"""Where explanations begin; what is longer, such as a path, has a line of its own."""
EXAMPLE = "distcalib init examples/digits/digits.prototxt"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "init",
        help="look at a prototxt and its data, and print the command that calibrates it",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_looking(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the command; exit code 1 if something is missing for it."""
    proposal = propose(
        model_of(args),
        args.weights,
        args.data,
        stages=args.stages,
        level=args.level,
        plugins=args.plugins,
        largest_mb=args.largest_mb,
        at_least=CalibrationOptions().sampling_iterations,
    )
    if args.json:
        print(json.dumps(proposal.to_dict(), indent=2, ensure_ascii=False))
    else:
        for line in lines(proposal):
            say(console_of(args), line)
    return ERROR if proposal.missing else OK


def lines(found: Proposal) -> list[str]:
    """The command, what each of its flags says, and what is missing."""
    shown = [found.command, ""]
    for part in found.parts:
        words = f"  {part.flag} {part.value}"
        if len(words) > _COLUMN:
            shown.append(words)
            words = ""
        shown.append(f"{words:<{_COLUMN}}  {part.why}")
    if found.missing:
        shown += ["", "before it can be run:", *(f"  {said}" for said in found.missing)]
    return shown
