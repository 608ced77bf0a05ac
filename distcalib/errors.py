"""All that distcalib raises on purpose, named for what is wrong.

    DistcalibError
    ├── OptionError        a flag or an argument has no such value, or two exclude each other
    ├── FormatError        a prototxt or caffemodel cannot be read
    │   └── FindingsError  several things are wrong with it, each in a line of its own
    ├── UnsupportedError   the net uses a layer type or a parameter that is not converted
    ├── WeightsError       the blobs of the caffemodel do not fit the net
    ├── DataError          a database, an image list or one of its records cannot be used
    │   └── AbsentError     a source is not where the prototxt says
    ├── EngineError        the inference engine refused or failed
    ├── MeasureError       actors could not be started, pinned or kept alive
    └── OutputError        a result cannot be written

Each takes exactly one message string: an exception with more required arguments does not survive the
pickling between a Ray actor and its driver. The message reads "where: what is; what would do" and is
shown to the user as it stands, so it names files and layers and never needs a traceback beside it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

FLAGS = {
    "--stage": "stages",
    "-1st": "enable_1st_conv",
    "-a": "calibration_algos",
    "-c": "weights_channel",
    "-clx": "clx",
    "-d": "detection",
    "-f": "unify_concat_scales",
    "-fc": "fc_int8",
    "-fu": "first_conv_force_u8",
    "-i": "iterations",
    "-l": "accuracy_loss",
    "-m": "model",
    "-n": "blob_name",
    "-p": "performance_model",
    "-q": "quantize_model",
    "-r": "root",
    "-s": "sampling_iterations",
    "-ss": "sampling_single",
    "-t": "concat_use_fp32",
    "-u": "unsigned_range",
    "-ucac": "disable_cac_unify",
    "-uff": "disable_force_fp32",
    "-w": "weights",
    "--actors": "n_actors",
    "--keep-weights": "recover",
    "--plugin": "plugins",
    **{
        f"--{name.replace('_', '-')}": name
        for name in (
            "accept_drop",
            "address",
            "allow_overwritten",
            "ap_version",
            "batch",
            "bias_correction",
            "by_time",
            "confidence",
            "count_saved",
            "cores_per_actor",
            "data",
            "equalize",
            "export",
            "isa",
            "keep_fp32",
            "keep_int8",
            "largest_mb",
            "max_candidates",
            "max_time",
            "no_thumbnails",
            "out",
            "outputs",
            "pareto",
            "preprocess",
            "recover",
            "ship_data",
            "skip_bad_records",
            "strategy",
            "to",
        )
    },
}
"""By flag the option of the Python API that it sets: an error names the one or the other."""

_LONGEST = 10_000
_LONGEST_NAME = 400
"""Letters; a file's name has at most 255 bytes."""

_LONG_WORD = re.compile(rf"\S{{{_LONGEST_NAME + 1},}}")
_FLAG = re.compile(r"(?<![\w/.-])--?[a-z0-9][a-z0-9-]*(?![\w-]|=\w)")
_LEADING = re.compile(r"^(--?[a-z0-9][\w-]*) ([^\s:,]+):")
_speaks_flags: ContextVar[bool] = ContextVar("speaks_flags", default=False)


@contextmanager
def flags_named() -> Iterator[None]:
    """Errors inside name options by their flags (`-l`), as the command line wants it, not by their names in Python."""
    token = _speaks_flags.set(True)
    try:
        yield
    finally:
        _speaks_flags.reset(token)


def options_named(message: str) -> str:
    """`message`, which names flags, with the options of the Python API in their place."""
    message = re.sub(r"(?<![\w-])-d ([01])(?![\w.])", lambda m: f"detection={m[1] == '1'}", message)
    message = _LEADING.sub(lambda m: f"{FLAGS[m[1]]}={m[2]}:" if m[1] in FLAGS else m[0], message)
    return _FLAG.sub(lambda m: FLAGS.get(m[0], m[0]), message)


class DistcalibError(Exception):
    """Base of every expected failure; its one argument is a sentence for the user.

    `str(error)` names options as the Python API does, or as flags inside `flags_named`. `code` names the kind of the
    error and stays what it is from release to release: docs/messages.md.
    """

    code = "error"

    def __str__(self) -> str:
        message = "\n".join(map(shortened, super().__str__().split("\n")))
        return message if _speaks_flags.get() else options_named(message)


class OptionError(DistcalibError):
    """A flag or an argument has a value that cannot be used."""

    code = "option"


class FormatError(DistcalibError):
    """A prototxt or a caffemodel cannot be read as what it should be."""

    code = "format"


class FindingsError(FormatError):
    """The one error of several lines: the first, and one for each finding, which is printable."""

    code = "format.findings"

    @classmethod
    def of(cls, where: str, findings: Sequence[str]) -> "FindingsError":
        """`where`: the first line."""
        return cls("\n  ".join(map(printable, (where, *findings))))


class UnsupportedError(DistcalibError):
    """The net uses layer types or parameters that are not converted; all of them are named."""

    code = "unsupported"


class WeightsError(DistcalibError):
    """The blobs of the caffemodel do not fit the layers of the net."""

    code = "weights"


class DataError(DistcalibError):
    """A data source or one of its records cannot be used; the record's key is named."""

    code = "data"


class AbsentError(DataError):
    """A source is not where the prototxt says; a net can be looked at without it."""

    code = "data.absent"


class EngineError(DistcalibError):
    """The inference engine refused a model or failed while running it."""

    code = "engine"


class MeasureError(DistcalibError):
    """Actors could not be started, pinned or kept alive."""

    code = "actors"


class OutputError(DistcalibError):
    """A result cannot be written."""

    code = "output"


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first of `names`, and how many more there are; "none". For names that come from a file: it may have 100,000,
    or one of a megabyte."""
    known = [brief(name, _LONGEST_NAME) for name in names]
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more or "none"


def brief(text: str, most: int) -> str:
    """`text`, or its beginning and its end, where it has more than `most` letters."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]} [... {len(text) - most:,} letters ...] {text[-end:]}"


def shortened(message: str) -> str:
    """A message of one line with long words in it cut, and its own middle where it is still long."""
    return brief(_LONG_WORD.sub(lambda m: brief(m[0], _LONGEST_NAME), message), _LONGEST)


def printable(text: str) -> str:
    r"""`text` with what is no letter, sign or blank written as in Python's strings: \x1b, \n, \u202e.

    Names of layers and files come from anybody, and a terminal obeys what it is sent: colours, its title, a line that
    nobody printed. Half of a name that is no UTF-8 (\udcff) would be an error besides.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def told(
    kind: type[DistcalibError], where: str, remedy: str, passed: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Whatever a library or a reader raises inside the block as `kind`: "where: ValueError: ...; remedy".

    For the edge between a file of anybody's and this program alone: what is expected has a sentence of its own, and
    is a DistcalibError, or one of `passed`. Kinds of exceptions cannot be listed there: NumPy, protobuf, cv2, lzma and
    h5py raise some twenty of them for damaged files, and a version later others (tests/fuzz).
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (DistcalibError, *passed)):
            raise
        raise kind(f"{where}: {described(error)}; {remedy}") from error


def described(error: Exception) -> str:
    """An exception in one line: its type, and the first line that it says; none where that is long."""
    if isinstance(error, MemoryError):
        return "memory ran out"
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
