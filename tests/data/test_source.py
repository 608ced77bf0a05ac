from __future__ import annotations

import pickle

import pytest

from distcalib.data.source import KeyIndex


def test_index_is_a_picklable_value() -> None:
    index = KeyIndex(10, 3, (b"a", b"d", b"g", b"j"))
    assert pickle.loads(pickle.dumps(index)) == index
    with pytest.raises(AttributeError):
        index.step = 1  # type: ignore[misc]
