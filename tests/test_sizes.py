"""How long files and functions of the package may be: what is longer has a seam that nobody has cut yet."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "distcalib"
GENERATED = {"caffe_pb2.py"}
FILE_LINES, FUNCTION_LINES = 400, 60
CLASS_LINES, STAGE_LINES = 300, 200
"""Of a class; of one in calibration/, where each has one thing to do."""


def too_long(sources: Mapping[str, str]) -> Iterator[str]:
    """Files of too many lines, classes and functions, by name of a file and its text."""
    for name, source in sources.items():
        n_lines = len(source.splitlines())
        if n_lines > FILE_LINES:
            yield f"{name}: {n_lines} lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.end_lineno is not None:
                n_lines = node.end_lineno - node.lineno + 1
                most = FUNCTION_LINES
                if isinstance(node, ast.ClassDef):
                    most = STAGE_LINES if name.startswith("calibration/") else CLASS_LINES
                if n_lines > most:
                    yield f"{name}: {node.name} has {n_lines} lines"


def test_files_and_functions_of_the_package_are_short() -> None:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in GENERATED]
    assert len(paths) > 100
    assert list(too_long({str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in paths})) == []


def test_too_long_names_files_and_functions() -> None:
    body = "    x = 1\n" * 59
    sources = {
        "short.py": "\n" * 399 + "x = 1\n",
        "long.py": "\n" * 400 + "x = 1\n",
        "whole.py": f"def f() -> None:\n{body}",
        "parts.py": f"class A:\n    def f(self) -> None:\n{body.replace('    ', ' ' * 8)}        y = 1\n",
        "calibration/stage.py": "class A:\n" + "    x = 1\n" * 200,
        "other/stage.py": "class A:\n" + "    x = 1\n" * 200,
    }
    assert list(too_long(sources)) == [
        "long.py: 401 lines",
        "parts.py: f has 61 lines",
        "calibration/stage.py: A has 201 lines",
    ]
