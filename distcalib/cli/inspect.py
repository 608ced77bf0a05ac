"""`distcalib inspect`."""

import argparse
import json
import re
from collections.abc import Sequence

from rich.console import Console

from distcalib.cli.arguments import add_looking, console_of, example, model_of
from distcalib.cli.console import say
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.data import VARIES
from distcalib.errors import printable
from distcalib.session.inspect import Inspection, inspect

_OF_LAYER = re.compile(r"(?P<file>[^:]+): layer '(?P<name>[^']*)' \((?P<type>\w+)\)(?P<rest>.*)", re.DOTALL)
_MOST_NAMED = 3
EXAMPLE = "distcalib inspect examples/digits/digits.prototxt -w examples/digits/digits.caffemodel"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "inspect",
        help="layers, shapes, scales, and all that cannot be run",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_looking(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the listing; exit code 1 if the net cannot be run."""
    inspection = inspect(
        model_of(args), args.weights, args.data, stages=args.stages, level=args.level, plugins=args.plugins
    )
    if args.json:
        print(json.dumps(inspection.to_dict(), indent=2))
    else:
        show(inspection, console_of(args))
    return ERROR if inspection.problems else OK


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as the listing shows it; `n` for a size that differs from iteration to iteration."""
    return "×".join("n" if size == VARIES else str(size) for size in shape)


def grouped(sentences: Sequence[str]) -> list[str]:
    """One sentence for all layers of a type that have the same fault, with their number and the first names."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for sentence in sentences:
        match = _OF_LAYER.fullmatch(sentence)
        key = (match["file"], match["type"], match["rest"]) if match else (sentence,)
        groups.setdefault(key, []).append(match["name"] if match else "")
    return [key[0] if len(key) == 1 else _of_layers(key, names) for key, names in groups.items()]


def _of_layers(key: tuple[str, ...], names: Sequence[str]) -> str:
    file, layer_type, rest = key
    if len(names) == 1:
        return f"{file}: layer '{names[0]}' ({layer_type}){rest}"
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{file}: {len(names)} layers {shown}{more} ({layer_type}){rest}"


def show(found: Inspection, console: Console) -> None:
    """The listing, then what is in the way, then a sentence."""
    rows: list[tuple[str, ...]] = [("layer", "type", "shape", "stored", "INT8")]
    for layer in found.layers:
        shapes = ", ".join("?" if s is None else shape_text(s) or "scalar" for s in layer.shapes)
        rows.append(tuple(map(printable, (layer.name, layer.type, shapes, layer.stored, layer.int8))))
    if not any(layer.stored for layer in found.layers):  # no layer is INT8: a column of nothing
        rows = [(*row[:3], row[4]) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:  # no table of rich's: it folds names to the width of the terminal, and a listing is searched
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(console, line)
    said = {"note": found.notes, "in Intel Caffe": found.warnings, "cannot be run": found.problems}
    for line in (f"{kind}: {sentence}" for kind, sentences in said.items() for sentence in grouped(sentences)):
        say(console, line)
    summary = f"{len(found.layers)} layers, {len(found.quantizable)} quantizable, {len(found.int8_layers)} INT8"
    if found.problems:
        summary += ", cannot be run as it is"
    say(console, f"{found.model}: {summary}")
