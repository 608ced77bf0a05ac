"""What tests of rankings share."""

from collections.abc import Iterator

import pytest

from distcalib.engine import ranking_parts


@pytest.fixture(scope="module")
def small_parts() -> Iterator[None]:
    """Rankings cut nets behind few layers, for nets of a test have no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking_parts, "FEWEST", 3)
        patch.setattr(ranking_parts, "MOST", 6)
        yield
