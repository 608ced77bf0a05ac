"""`distcalib compare`: runs side by side."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from distcalib.cli.arguments import a_path, add_output, console_of, example
from distcalib.cli.console import say
from distcalib.cli.exit_codes import OK
from distcalib.cli.report import report_file
from distcalib.errors import OptionError, printable
from distcalib.report import differing, facts, not_comparable, read_report

EXAMPLE = "distcalib compare build/demo build/other"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="runs side by side: what was asked for, scores, layers, cost",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=a_path, metavar="RUN", help="folders of runs, or their report.json")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table, a column for each run."""
    paths: list[Path] = args.runs
    if len(paths) < 2:
        raise OptionError(f"{paths[0]}: is one run alone; give two or more to compare")
    reports = [read_report(report_file(path)) for path in paths]
    compared = [facts(report) for report in reports]
    doubt = not_comparable(reports)
    if args.json:
        runs = [{"run": str(path), **one} for path, one in zip(paths, compared, strict=True)]
        print(json.dumps({"not_comparable": doubt, "runs": runs}, indent=2, ensure_ascii=False))
        return OK
    console = console_of(args)
    console.print(_table(paths, compared))
    if doubt:
        say(console, f"what they lose cannot be compared: {doubt}")
    return OK


def _table(paths: Sequence[Path], compared: Sequence[Mapping[str, str]]) -> Table:
    """Facts that differ are marked."""
    table = Table("", "", *(_plain(str(path)) for path in paths), box=box.SIMPLE_HEAD)
    for column in table.columns[2:]:
        column.overflow = "fold"
    marked = differing(compared)
    for name in compared[0]:
        cells = (_plain(one[name]) for one in compared)
        table.add_row("*" if name in marked else "", name, *cells, style="bold" if name in marked else "")
    table.caption = "* differs"
    table.caption_justify = "left"
    return table


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    return escape(printable(text))
