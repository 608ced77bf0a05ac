"""What is said of a file that is not where a prototxt or a list says."""

from pathlib import Path

from distcalib.errors import AbsentError


def absent(path: str | Path, what: str = "source") -> AbsentError:
    """That `path` does not exist, and how a relative one is looked up."""
    if str(path).startswith("~"):
        return AbsentError(
            f"{path}: does not exist, for ~ is not your home folder here, nor in Caffe; write the whole path"
        )
    return AbsentError(
        f"{path}: does not exist; a relative {what} is looked up from the working directory, then from the folder of "
        "the prototxt"
    )
