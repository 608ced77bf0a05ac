"""What a user of Python who gives no reporter finds in the log."""

import logging

import pytest

from distcalib.session.progress import Logged


def test_logged_tells_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Logged()
    with caplog.at_level(logging.DEBUG, "distcalib"):
        reporter.phase("FP32", 4, 2)
        reporter.advance(1, 4)
        reporter.note("a note with 100 %s")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "FP32: 4 iterations of 2 images"),
        ("DEBUG", "FP32: 1/4 iterations"),
        ("INFO", "a note with 100 %s"),
    ]
