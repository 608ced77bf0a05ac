"""Plugins: modules that add layers, scores, data sources or search strategies.

They are those that the user names and those of installed packages, which name theirs as entry points of the group
`distcalib.plugins`. The driver imports them before it reads a net, and every actor before it runs one. What a plugin
may register is in docs/plugins.md.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from distcalib.errors import OptionError, described

GROUP = "distcalib.plugins"
_loaded: dict[str, ModuleType] = {}


def load_plugins(names: Sequence[str] = ()) -> None:
    """Import the modules `names` (`package.module`, or the path of a .py file), and those of installed packages.

    One that is imported already is left as it is. Raises OptionError for a module that cannot be imported.
    """
    for name in _wanted(names):
        if name not in _loaded:
            _loaded[name] = _imported(name)


def plugin_versions(names: Sequence[str] = ()) -> dict[str, str]:
    """A hash of the code of each plugin of a run, by `plugin NAME`: scores depend on it.

    Those that an earlier run of this process imported do not count: its actors do not have them.
    """
    return {f"plugin {_short(name)}": _hash(_loaded[name]) for name in sorted(_wanted(names)) if name in _loaded}


def _wanted(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *_installed())))


def _short(name: str) -> str:
    path = Path(name)
    return name if path.suffix != ".py" else path.parent.name if path.stem == "__init__" else path.stem


def _installed() -> Iterator[str]:
    yield from sorted(point.module for point in entry_points(group=GROUP))


def _imported(name: str) -> ModuleType:
    try:
        return _of_file(Path(name)) if name.endswith(".py") else import_module(name)
    except Exception as error:  # whatever the module raises
        raise OptionError(
            f"--plugin {name}: cannot be imported ({described(error)}); correct it, or install it where every actor "
            "runs"
        ) from error


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    spec = spec_from_file_location(f"distcalib_plugin_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _hash(module: ModuleType) -> str:
    """Of the module's file, or of all of a package's."""
    file = getattr(module, "__file__", None)
    if file is None:
        return "unknown"
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for source in files:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
