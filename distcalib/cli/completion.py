"""`distcalib completion`: a script that completes commands, flags and their values in a shell.

Made by shtab from the parsers: a script costs nothing at a Tab, where argcomplete would start Python and import Ray.
"""

import argparse
from collections.abc import Iterator

from distcalib.cli.arguments import a_path, example
from distcalib.cli.exit_codes import OK

SHELLS = ("bash", "zsh", "fish")
EXAMPLE = "distcalib completion bash"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "completion",
        help="print a script for the shell that completes commands, flags, values and files",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="the shell")
    parser.add_argument("--verbose", action="store_true", help="show where an error happened")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(script(args.parser, args.shell))
    return OK


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What `shell` reads to complete the commands of `parser`; paths are completed as files and folders."""
    import shtab  # by this command alone

    for action in _actions(parser):
        if action.type is a_path:
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
