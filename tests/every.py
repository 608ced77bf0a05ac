"""`all` for tests: of nothing it is false, for an assertion about nothing cannot fail."""

from collections.abc import Iterable


def every(found: Iterable[object]) -> bool:
    """Whether there is something, and all of it is true."""
    values = list(found)
    return bool(values) and all(values)
