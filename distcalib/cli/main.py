"""Arguments in, an exit code out; what each command does stands in the file of its name."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from distcalib.cli import calibrate, doctor, evaluate, export, inspect, runs, verify
from distcalib.cli.arguments import example
from distcalib.cli.exit_codes import ERROR, INTERRUPTED, TERMINATED
from distcalib.errors import DistcalibError, OptionError
from distcalib.measure.interrupts import termination_told, was_terminated
from distcalib.version import __version__

COMMANDS = (calibrate, evaluate, export, verify, inspect, doctor, runs)


class Parser(argparse.ArgumentParser):
    """Raises OptionError where argparse would print its usage and exit with 2, which means "tolerance not met" here."""

    def error(self, message: str) -> NoReturn:
        """One sentence, and where to read more."""
        raise OptionError(f"{message}; see {self.prog} --help")

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """No abbreviations with one dash either: `-l -1` would be -l without a value and the start of -1st."""
        found: list[Any] = super()._get_option_tuples(option_string)
        return [each for each in found if each[-1] is not None]  # what is left is a value behind its flag: -i10


def make_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands."""
    parser = Parser(
        prog="distcalib",
        description="INT8 calibration of Caffe models, with the accuracy measured on every core.",
        epilog=example(calibrate.EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"distcalib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done and met, 1 error, 2 tolerance not met, 130 Ctrl-C, 143
    SIGTERM."""
    verbose = "--verbose" in (sys.argv[1:] if argv is None else argv)
    try:
        with termination_told():
            args, unknown = make_parser().parse_known_args(argv)
            if unknown:
                raise OptionError(f"unrecognized arguments: {' '.join(unknown)}; see distcalib {args.command} --help")
            code: int = args.run(args)
            if sys.stdout is not None:  # None: closed by who started it
                sys.stdout.flush()  # here, where it can still be told that nothing more fits
            return code
    except DistcalibError as error:
        if verbose:
            traceback.print_exc()
        print(f"distcalib: {error}", file=sys.stderr)
        return ERROR
    except BrokenPipeError:  # `distcalib inspect net.prototxt | head`: nobody is left to be told
        _drop_stdout()
        return ERROR
    except OSError as error:
        if error.errno != errno.ENOSPC or not _stdout_is_full():
            raise
        _drop_stdout()
        print("distcalib: stdout: No space left on device; free some, or send the output elsewhere", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt as error:
        print(f"distcalib: interrupted; {str(error) or 'no result was written'}", file=sys.stderr)
        return TERMINATED if was_terminated() else INTERRUPTED


def _stdout_is_full() -> bool:
    """Whether not even the end of a line fits."""
    try:
        print(flush=True)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def _drop_stdout() -> None:
    """What is still to be written goes nowhere, or the flush at exit would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
