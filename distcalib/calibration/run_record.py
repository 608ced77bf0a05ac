"""A run's line in the journal, from its begin to its end, however it ends; and what Ctrl-C or another signal leaves."""

import json
import signal
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import DistcalibError, OutputError
from distcalib.report import CalibrationReport
from distcalib.session.session import Session

CONTINUES = "no result was written; the same command continues from the journal"


def signal_name(number: signal.Signals) -> str:
    """A signal as `stopped_by` names it."""
    return "Ctrl-C" if number == signal.SIGINT else number.name


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, after which the best so far was written; `report` is what report.json holds."""

    def __init__(self, report: CalibrationReport) -> None:
        super().__init__(report.verdict)
        self.report = report


class RunRecord:
    """A context manager around the work of a session that has a journal.  `verdict` is set before it ends well."""

    def __init__(self, session: Session, command: str, options: CalibrationOptions) -> None:
        self.verdict: str | None = None
        self._session = session
        self._begun = (command, described(options), session.versions)
        self._number = 0

    def __enter__(self) -> "RunRecord":
        assert self._session.journal is not None, "a run is recorded in the journal of its session"
        self._number = self._session.journal.begin(*self._begun)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state = "done" if error is None else "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        verdict = self.verdict or (str(error) or None if isinstance(error, DistcalibError) else None)
        try:
            self._end(state, verdict)
        except OutputError:
            if error is None:
                raise
        n_rows = self._session.n_rows_measured + self._session.n_rows_from_journal
        if isinstance(error, KeyboardInterrupt) and not error.args and n_rows:
            raise KeyboardInterrupt(CONTINUES) from None

    def _end(self, state: str, verdict: str | None) -> None:
        session = self._session
        assert session.journal is not None, "it was there at the begin"
        counts = {"n_measured": session.n_rows_measured, "n_recorded": session.n_rows_from_journal}
        session.journal.end(self._number, state, verdict, **counts)


def note_lost_journal(session: Session) -> None:
    """Note that the folder was removed under the run: results are written all the same, and nothing else is left."""
    try:
        if session.journal is not None:
            session.journal.check_in_place()
    except OutputError as error:
        session.reporter.note(str(error).partition("; ")[0])


def described(options: CalibrationOptions) -> Mapping[str, Any]:
    """The options that are not the defaults, as JSON has them."""
    defaults = CalibrationOptions()
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    changed = {name: value for name, value in given.items() if value != getattr(defaults, name)}
    plain: Mapping[str, Any] = json.loads(json.dumps(changed, default=_plain))
    return plain


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"an option of type {type(value).__name__} cannot be recorded")
