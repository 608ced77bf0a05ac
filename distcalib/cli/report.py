"""`distcalib report`: the page of a run again, from its report.json."""

import argparse
import json
from pathlib import Path

from distcalib.caffe import write_atomically
from distcalib.cli.arguments import a_path, add_output, console_of, example
from distcalib.cli.console import say
from distcalib.cli.exit_codes import OK
from distcalib.report import page, read_report

EXAMPLE = "distcalib report build/demo"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="make report.html again from report.json",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run_path", type=a_path, metavar="RUN", help="folder of a run, or its report.json")
    parser.add_argument("--out", type=a_path, metavar="FILE", help="the page (default: report.html beside report.json)")
    add_output(parser)
    parser.set_defaults(run=run)


def report_file(run_path: Path) -> Path:
    """The report.json of a run that is named by its folder or by the file."""
    return run_path / "report.json" if run_path.is_dir() else run_path


def run(args: argparse.Namespace) -> int:
    """Write the page; the line is the verdict of the run."""
    file = report_file(args.run_path)
    report = read_report(file)
    target: Path = args.out or file.with_name("report.html")
    write_atomically(target, page(report))
    if args.json:
        print(json.dumps({"page": str(target), "verdict": report.verdict}, indent=2, ensure_ascii=False))
    else:
        say(console_of(args), report.verdict)
        say(console_of(args), f"wrote {target}")
    return OK
