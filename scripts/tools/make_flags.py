"""Write docs/flags.md, the flags of all commands, from what --help says.

python -m scripts.tools.make_flags
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from distcalib.caffe import write_atomically
from distcalib.cli.main import make_parser

FILE = Path(__file__).resolve().parents[2] / "docs" / "flags.md"
_HEAD = """# Flags

Made from `--help` by `python -m scripts.tools.make_flags`. The flags of Intel's calibrator are spelled as there; one
that is not here (`-wi`) is refused by name, never ignored. In Python they are the fields of `CalibrationOptions`,
`EvaluationOptions` and `ExportOptions`, by their long names with `_` for `-`; `--actors` is `n_actors`, `--plugin` is
`plugins`.
"""


def page() -> str:
    """The text of docs/flags.md."""
    return _HEAD + "".join(_section(name, command) for name, command in _commands(make_parser()))


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _section(name: str, command: argparse.ArgumentParser) -> str:
    lines = [f"\n## distcalib {name}\n", "| flag | meaning |", "| --- | --- |"]
    for action in command._actions:
        if action.help not in (argparse.SUPPRESS, None) and action.dest != "help":
            lines.append(f"| {_cell(_spelled(action))} | {_cell(str(action.help))} |")
    return "\n".join(lines) + "\n"


def _spelled(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar or _choices(action)}"
    names = action.option_strings or [str(action.metavar or action.dest)]
    return ", ".join(f"`{name}{value if name == names[-1] and action.option_strings else ''}`" for name in names)


def _choices(action: argparse.Action) -> str:
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


def main() -> None:
    write_atomically(FILE, page())


if __name__ == "__main__":
    main()
