"""`distcalib runs`: what was run in a folder, from its journal."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from distcalib.cli.arguments import a_path, add_output, console_of, example
from distcalib.cli.exit_codes import OK
from distcalib.errors import OptionError, printable
from distcalib.journal import Run, read_runs

EXAMPLES = ("distcalib runs --out build/demo", "distcalib runs show 1 --out build/demo")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "runs",
        help="the runs in a folder's journal, or one of them",
        epilog=example(*EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="*", metavar="show N", help="print run N in full (default: list all)")
    parser.add_argument("--out", type=a_path, default=Path(), metavar="DIR", help="folder of the results (default: .)")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table."""
    number = _number(args.what)
    runs = read_runs(args.out)
    if number is None:
        if args.json:
            print(json.dumps([asdict(one) for one in runs], indent=2))
        else:
            console_of(args).print(_listed(runs))
        return OK
    chosen = next((one for one in runs if one.number == number), None)
    if chosen is None:
        raise OptionError(f"{args.out}: has no run {number}; its runs are 1 to {len(runs)}")
    if args.json:
        print(json.dumps(asdict(chosen), indent=2))
    else:
        console_of(args).print(_shown(chosen))
    return OK


def _number(what: Sequence[str]) -> int | None:
    """None: all runs."""
    if not what:
        return None
    if len(what) != 2 or what[0] != "show" or not what[1].isdecimal():
        raise OptionError(f"unknown argument '{' '.join(what)}'; use 'distcalib runs' or 'distcalib runs show N'")
    return int(what[1])


def _listed(found: Sequence[Run]) -> Table:
    table = Table("run", "begun (UTC)", "state", "rows measured", "from the journal", "command", box=None)
    for one in found:
        begun = one.begun[:19].replace("T", " ")
        cells = (one.number, begun, one.state, one.n_measured, one.n_recorded, one.command)
        table.add_row(*map(_plain, cells))
    return table


def _shown(one: Run) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in asdict(one).items():
        told = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        table.add_row(name, _plain("" if told is None else told))
    return table


def _plain(value: object) -> str:
    """Text in which nothing is markup."""
    return escape(printable(str(value)))
