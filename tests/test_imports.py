"""Imports go one way, down the pipeline, and each heavy library stays where it belongs.

The sources are parsed, not imported, so an import inside a function counts, and one under TYPE_CHECKING does too: a
type is a dependency as well.
"""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "distcalib"

#: A unit imports those above it. `version` is a constant; the package itself and __main__ see everything.
PIPELINE = (
    "version",
    "errors",
    "plugins",
    "caffe",
    "quantize",
    "metrics",
    "data",
    "layers",
    "engine",
    "exporters",
    "actors",
    "search",
    "report",
    "journal",
    "session",
    "calibration",
    "cli",
)
#: search/ decides and nothing else: what it does not import it cannot depend on.
ONLY = {"search": {"search", "quantize", "errors"}}
#: Library -> units that may import it. cli/ may name any, to say which version runs.
CONFINED = {
    "ray": {"actors", "cli"},
    "openvino": {"layers", "engine", "exporters", "cli"},
    "onnx": {"exporters"},
    "onnxruntime": {"exporters"},
    "lmdb": {"data", "cli"},
    "cv2": {"data", "cli"},
    "h5py": {"data", "cli"},
    "cramjam": {"data", "cli"},
    "jinja2": {"report", "cli"},
}


def module_name(path: Path, root: Path) -> str:
    """distcalib/caffe/reading.py -> distcalib.caffe.reading; an __init__.py -> its package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool, modules: Collection[str]) -> Iterator[str]:
    """Every module that `source` imports, in full; `from a import b` is a.b where `modules` has that, else a."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            full = (f"{base}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else base for name in full)


def unit(module: str) -> str:
    """distcalib.caffe.reading -> caffe; the package itself -> ""."""
    return module.split(".")[1] if "." in module else ""


def offences(sources: Mapping[str, str], packages: frozenset[str] = frozenset()) -> list[str]:
    """What breaks the rules in `sources` (module name -> text); `packages` are the names of its __init__.py files."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, source in sorted(sources.items()):
        here = unit(module)
        free = here in ("", "__main__")
        if not free and here not in PIPELINE:
            found.append(f"{module}: '{here}' has no place in the pipeline; add it to PIPELINE")
            continue
        names = set(imports(source, module, module in packages, sources))
        graph[module] = {name for name in names if name in sources}
        if free:
            continue
        for library in sorted({name.split(".")[0] for name in names} & set(CONFINED)):
            if here not in CONFINED[library]:
                found.append(f"{module}: imports {library}, which only {', '.join(sorted(CONFINED[library]))} may")
        for name in sorted(graph[module]):
            there = unit(name)
            if there == here:
                continue
            if there not in PIPELINE or PIPELINE.index(there) > PIPELINE.index(here):
                found.append(f"{module}: imports {name}, which is further down the pipeline")
            elif here in ONLY and there not in ONLY[here]:
                found.append(f"{module}: imports {name}; {here} may import {', '.join(sorted(ONLY[here]))} only")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("cycle: " + " -> ".join(reversed(error.args[1])))
    return found


def test_imports_of_the_package_follow_the_pipeline() -> None:
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    sources = {module_name(path, ROOT): path.read_text(encoding="utf-8") for path in paths}
    packages = frozenset(module_name(path, ROOT) for path in paths if path.name == "__init__.py")
    assert len(sources) > 10
    assert offences(sources, packages) == []


OFFENDING = {
    "goes up": (
        {"distcalib.caffe.a": "import distcalib.engine.b", "distcalib.engine.b": ""},
        "distcalib.caffe.a: imports distcalib.engine.b, which is further down the pipeline",
    ),
    "goes up inside a function": (
        {"distcalib.data.a": "def f():\n    from distcalib.layers import b", "distcalib.layers.b": ""},
        "distcalib.data.a: imports distcalib.layers.b, which is further down the pipeline",
    ),
    "goes up by a relative import": (
        {"distcalib.caffe.a": "from ..engine import b", "distcalib.engine.b": ""},
        "distcalib.caffe.a: imports distcalib.engine.b, which is further down the pipeline",
    ),
    "imports a name of a package": (
        {"distcalib.report.a": "from distcalib.cli import main", "distcalib.cli": ""},
        "distcalib.report.a: imports distcalib.cli, which is further down the pipeline",
    ),
    "imports a name of the whole": (
        {"distcalib": "", "distcalib.report.a": "from distcalib import calibrate"},
        "distcalib.report.a: imports distcalib, which is further down the pipeline",
    ),
    "cycle": (
        {"distcalib.caffe.a": "from distcalib.caffe import b", "distcalib.caffe.b": "from . import a"},
        "cycle: distcalib.caffe.a -> distcalib.caffe.b -> distcalib.caffe.a",
    ),
    "ray outside": (
        {"distcalib.search.a": "import ray"},
        "distcalib.search.a: imports ray, which only actors, cli may",
    ),
    "openvino outside": (
        {"distcalib.metrics.a": "import openvino.opset13 as ops"},
        "distcalib.metrics.a: imports openvino, which only cli, engine, exporters, layers may",
    ),
    "cv2 outside": (
        {"distcalib.engine.a": "def f():\n    import cv2"},
        "distcalib.engine.a: imports cv2, which only cli, data may",
    ),
    "search looks around": (
        {"distcalib.search.a": "import distcalib.metrics.b", "distcalib.metrics.b": ""},
        "distcalib.search.a: imports distcalib.metrics.b; search may import errors, quantize, search only",
    ),
    "unknown place": (
        {"distcalib.utils": ""},
        "distcalib.utils: 'utils' has no place in the pipeline; add it to PIPELINE",
    ),
}


@pytest.mark.parametrize(("sources", "offence"), OFFENDING.values(), ids=list(OFFENDING))
def test_offences_names_what_breaks_the_rules(sources: dict[str, str], offence: str) -> None:
    found = offences(sources)
    if offence.startswith("cycle"):  # a cycle may be told from any of its modules
        assert len(found) == 1
        assert set(found[0].removeprefix("cycle: ").split(" -> ")) == set(sources)
    else:
        assert found == [offence]


def test_offences_lets_pass_what_goes_down() -> None:
    sources = {
        "distcalib": "from distcalib.cli import main\nimport ray",
        "distcalib.__main__": "from distcalib.cli import main",
        "distcalib.errors": "",
        "distcalib.caffe": "from distcalib.caffe.reading import read_net",
        "distcalib.caffe.reading": "from distcalib.caffe import wire\nfrom distcalib.errors import FormatError",
        "distcalib.caffe.wire": "",
        "distcalib.actors.pool": "import ray",
        "distcalib.cli": "from distcalib import errors\nimport openvino\nfrom distcalib.actors import pool",
    }
    assert offences(sources, frozenset({"distcalib", "distcalib.caffe", "distcalib.cli"})) == []


def test_importing_the_package_changes_nothing_in_the_process() -> None:
    lines = [
        "import os, pkgutil, signal, threading, importlib, distcalib",
        "before, hook = dict(os.environ), signal.getsignal(signal.SIGINT)",
        "found = [m.name for m in pkgutil.walk_packages(distcalib.__path__, 'distcalib.')]",
        "names = [name for name in found if 'onnx' not in name and '__main__' not in name]",
        "[importlib.import_module(name) for name in names]",
        "import sys",
        "changed = {k: v for k, v in os.environ.items() if before.get(k) != v and k != 'LD_LIBRARY_PATH'}",  # OpenCV
        "print(len(names) > 100, changed, 'ray' in sys.modules, signal.getsignal(signal.SIGINT) is hook)",
        "print([t.name for t in threading.enumerate()])",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["True {} False True", "['MainThread']"]
