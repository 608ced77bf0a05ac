"""What the tests themselves must keep to."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def vacuous(path: Path) -> list[int]:
    """The lines of `path` with an `assert all(...)`: of nothing it holds."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
        and isinstance(node.test, ast.Call)
        and isinstance(node.test.func, ast.Name)
        and node.test.func.id == "all"
    ]


@pytest.mark.parametrize("folder", sorted({path.parent for path in TESTS.rglob("*.py")}), ids=lambda path: path.name)
def test_no_assertion_holds_for_nothing(folder: Path) -> None:
    found = {path.name: lines for path in folder.glob("*.py") if (lines := vacuous(path))}
    assert found == {}, "write `every(...)` of tests.every in place of `all(...)`"


def test_vacuous_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text("def test() -> None:\n    assert all(x for x in [])\n    assert every(x for x in [])\n")
    assert vacuous(path) == [2]
