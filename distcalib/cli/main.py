"""Arguments in, an exit code out; what each command does stands in the file of its name."""

import argparse
import contextlib
import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from distcalib.actors.lost_pages import lost_pages_told
from distcalib.actors.signals import termination_told
from distcalib.cli import calibrate, compare, completion, doctor, evaluate, export, init, inspect, report, runs, verify
from distcalib.cli.arguments import example
from distcalib.cli.config import FLAG, configured, printed, settled
from distcalib.cli.exit_codes import ERROR, OK, interrupted_by
from distcalib.errors import DistcalibError, FindingsError, OptionError, flags_named, printable
from distcalib.version import __version__

COMMANDS = (init, calibrate, evaluate, export, verify, inspect, doctor, runs, report, compare, completion)


class Parser(argparse.ArgumentParser):
    """Raises OptionError where argparse would print its usage and exit with 2, which means "tolerance not met" here."""

    def error(self, message: str) -> NoReturn:
        """One sentence, and where to read more."""
        hint = ""
        if self.prog.endswith(" calibrate") and message.startswith("the following arguments are required"):
            hint = ", or let distcalib init MODEL print the command"
        raise OptionError(f"{message}; see {self.prog} --help{hint}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A flag whose value may be left out takes only a value that it knows: not the MODEL that stands behind it."""
        optional = {
            flag: action
            for action in self._actions
            if action.nargs == "?" and action.choices
            for flag in action.option_strings
        }
        words = list(sys.argv[1:] if args is None else args)
        for i, word in enumerate(words):
            action = optional.get(word)
            if action is not None and not set(words[i + 1 : i + 2]) & set(action.choices or ()):
                words[i] = f"{word}={action.const}"
        return super().parse_known_args(words, namespace)

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """No abbreviations with one dash either: `-l -1` would be -l without a value and the start of -1st."""
        options: list[Any] = super()._get_option_tuples(option_string)
        return [each for each in options if each[-1] is not None]  # what is left is a value behind its flag: -i10


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
    parser.set_defaults(parser=parser)  # for `completion`
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done and met, 1 error, 2 tolerance not met, 130 Ctrl-C, 143
    SIGTERM, 129 SIGHUP."""
    with flags_named():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    verbose = "--verbose" in argv
    _open_standard_streams()
    try:
        with termination_told(), lost_pages_told():
            code = _run(argv)
            if sys.stdout is not None:  # None: closed by who started it
                sys.stdout.flush()  # here, where it can still be told that nothing more fits
            return code
    except DistcalibError as error:
        if verbose:
            for line in traceback.format_exc().splitlines():
                print(printable(line), file=sys.stderr)
        message = str(error)
        if "--json" in argv:
            print(json.dumps({"error": {"code": error.code, "message": message}}, indent=2, ensure_ascii=False))
        _tell(*(message.split("\n  ") if isinstance(error, FindingsError) else [message]))
        return ERROR
    except MemoryError:
        _tell("memory ran out; free some, or use fewer actors (--actors) or a smaller batch")
        return ERROR
    except BrokenPipeError:  # `distcalib inspect net.prototxt | head`: nobody is left to be told
        _drop_stdout()
        return ERROR
    except OSError as error:
        if error.errno != errno.ENOSPC or not _stdout_is_full():
            raise
        _drop_stdout()
        _tell("stdout: No space left on device; free some, or send the output elsewhere")
        return ERROR
    except KeyboardInterrupt as error:
        _tell(f"interrupted; {str(error) or 'no result was written'}")
        return interrupted_by()


def _run(argv: Sequence[str]) -> int:
    """Parse, with what --config says, and do it."""
    parser = make_parser()
    command = _command_of(parser, argv)
    if command is not None:
        configured(command, argv)
    args = parsed(parser, argv)
    if command is not None:
        args = settled(args, command)
        if args.print_config:
            print(printed(args, command, args.command), end="")
            return OK
    code: int = args.run(args)
    return code


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments.  Raises OptionError."""
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise OptionError(f"unrecognized arguments: {' '.join(unknown)}; see distcalib {args.command} --help")
    return args


def _command_of(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.ArgumentParser | None:
    """The parser of the command of `argv`, if it takes --config."""
    [commands] = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    command: argparse.ArgumentParser | None = commands.choices.get(argv[0]) if argv else None
    return command if command is not None and FLAG in command._option_string_actions else None


class _Stderr(logging.Handler):
    """Messages of the log, such as of nodes by their names: each in one line of stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message alone, as Python does where no logging is set up."""
        print(printable(record.getMessage()), file=sys.stderr)


def _open_standard_streams() -> None:
    """Open /dev/null in place of what was closed by whoever started this: Ray cannot start without a stderr, and the
    first file that is opened would take the place of stdout. Warnings are shown on stderr, escaped."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                while os.open(os.devnull, os.O_RDWR) < number:
                    pass
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))  # noqa: SIM115  for good
    logging.getLogger("distcalib").handlers[:] = [_Stderr()]


def _tell(message: str, *findings: str) -> None:
    """The last line of a command that failed, or, of several findings, the last lines."""
    print("\n  ".join(map(printable, (f"distcalib: {message}", *findings))), file=sys.stderr)


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
