"""Fixtures that all tests share.

The recorded answers of Intel Caffe are too large for the repository, so a test that needs them skips where they
are absent. It fails instead where CI says that they should be there (environment variable CI): skipping would make
a run green that has checked nothing.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder that holds golden/, golden_ssd/ and cifar10/: DISTCALIB_GOLDEN, or ../shared beside the repository."""
    folder = Path(os.environ.get("DISTCALIB_GOLDEN") or ROOT.parent / "shared")
    if not (folder / "golden").is_dir():
        reason = f"{folder}: no recorded answers of Intel Caffe; set DISTCALIB_GOLDEN to the folder that holds golden/"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
