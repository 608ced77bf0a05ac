"""The way of a search, with answers that come one by one; no actors."""

from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from distcalib.calibration.search_path import SearchPath
from distcalib.errors import MeasureError
from distcalib.quantize.candidate import Candidate, Space
from distcalib.search import Answer, Ask, Decide, Measure, Rank, Request, Search, Verdict

START = Space(("a", "b", "c"), {}).all_int8
A, B, C = (START.without(name) for name in "abc")


def search() -> Search:
    """Is A good? Then B is returned, if that is good too, else A; if not, C, which is measured by nobody before."""
    [first] = yield Ask([Decide(A)], [Decide(B), Decide(C)])
    if not _meets(first):
        [_] = yield Ask([Decide(C)])
        return C
    [second] = yield Ask([Decide(B)])
    return B if _meets(second) else A


def _meets(answer: Answer) -> bool:
    assert isinstance(answer, Verdict)
    return answer.meets


class Told:
    """Verdicts by candidate, and about which of them was asked."""

    def __init__(self, **verdicts: bool) -> None:
        self.verdicts = {START.without(name): meets for name, meets in verdicts.items()}
        self.asked: list[Candidate] = []

    def is_known(self, request: Request) -> bool:
        return isinstance(request, Decide) and request.candidate in self.verdicts

    def answer(self, request: Request) -> Answer:
        assert isinstance(request, Decide)
        self.asked.append(request.candidate)
        return Verdict(request.candidate, self.verdicts[request.candidate])

    def answer_any(self, request: Request) -> Answer:
        return Verdict(START, True)


@pytest.mark.parametrize(
    ("told", "asked", "left", "winner"),
    [
        (Told(), [], [A, B, C], None),
        (Told(b=True), [], [A, B, C], None),
        (Told(a=True), [A], [B], None),
        (Told(a=False), [A], [C], None),
        (Told(a=True, b=False), [A, B], [], A),
        (Told(a=False, b=True, c=False), [A, C], [], C),
    ],
    ids=["nothing", "only what may be asked later", "as expected", "a surprise", "to the end", "to the end, surprised"],
)
def test_path_goes_as_far_as_answers_are_known(
    told: Told, asked: Sequence[Candidate], left: Sequence[Candidate], winner: Candidate | None
) -> None:
    path = SearchPath(search())
    path.go_on(told.is_known, told.answer)
    assert told.asked == asked
    assert [candidate for candidate in (A, B, C) if path.may_ask(candidate)] == left
    assert path.winner is winner
    assert (path.ask is None) == (winner is not None)


def test_path_goes_on_when_more_is_known() -> None:
    path, told = SearchPath(search()), Told(a=True)
    path.go_on(told.is_known, told.answer)
    path.go_on(told.is_known, told.answer)
    told.verdicts[B] = True
    path.go_on(told.is_known, told.answer)
    assert (told.asked, path.winner) == ([A, B], B)


def test_path_waits_for_a_ranking() -> None:
    def ranked() -> Search:
        yield Ask([Rank(("a", "b"))], [Decide(A)])
        return START

    path, told = SearchPath(ranked()), Told(a=True)
    path.go_on(told.is_known, told.answer)
    assert told.asked == []
    assert path.may_ask(A)
    assert not path.may_ask(B)


def test_path_of_a_search_that_asks_nothing_is_at_its_end() -> None:
    def silent() -> Search:
        yield from ()
        return START

    path = SearchPath(silent())
    assert (path.ask, path.winner) == (None, START)


def test_path_names_a_strategy_that_returns_nothing() -> None:
    def forgetful() -> Iterator[Ask]:
        yield Ask([Decide(A)])

    path = SearchPath(cast(Search, forgetful()))
    path.go_on(Told(a=True).is_known, Told(a=True).answer)
    with pytest.raises(MeasureError, match="the strategy ended without a candidate"):
        _ = path.result


def test_path_measures_what_it_asks_the_score_of() -> None:
    def measured() -> Search:
        yield Ask([Decide(A)], [Decide(B)])
        yield Ask([Measure(A)])
        return A

    path, told = SearchPath(measured()), Told(a=True)
    assert not any(path.measures(candidate) for candidate in (A, B))
    path.go_on(told.is_known, told.answer)
    assert [path.measures(candidate) for candidate in (A, B)] == [True, False]
    path.go_on(lambda _: True, told.answer_any)
    assert not path.measures(A)
