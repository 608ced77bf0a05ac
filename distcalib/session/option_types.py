"""Options as what they are annotated to be: converted where that loses nothing, refused where it does.

For users of the Python API: `out="folder"` becomes a Path and `keep_fp32=["conv1"]` a tuple, but `iterations=2.5` is no
number of iterations and `keep_fp32="conv1"` would be read as five names.  50 lines in place of a library, since the
options know five kinds of values.
"""

from collections.abc import Iterable
from dataclasses import fields
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np

from distcalib.errors import OptionError


def convert_options(options: object) -> None:
    """Convert the fields of a dataclass in place, frozen or not.  Raises OptionError naming all that do not fit."""
    hints = get_type_hints(type(options))
    problems = []
    for field in fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        try:
            object.__setattr__(options, field.name, _converted(value, hints[field.name]))
        except ValueError as error:
            problems.append(f"{field.name}={value!r}: {error}")
    if problems:
        raise OptionError("; ".join(problems))


def _converted(value: object, kind: Any) -> object:
    """`value` as `kind`; ValueError says what would fit."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    problems = []
    for one in (k for k in kinds if k is not type(None)):
        convert = {bool: _bool, int: _int, float: _float, str: _str, Path: _path}.get(one, _names)
        try:
            return convert(value)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(", or ".join(problems))


def _bool(value: object) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError("must be True or False")


def _int(value: object) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise ValueError("must be a whole number")


def _float(value: object) -> float:
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("must be a number")


def _str(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("must be a text")


def _path(value: object) -> Path:
    if isinstance(value, (str, PathLike)):
        return Path(value)
    raise ValueError("must be a path")


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise ValueError("must be a list of names, such as ['conv1']")
