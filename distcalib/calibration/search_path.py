"""A search on its way: what it asks now, and which candidates of the current round it may still ask about."""

from collections.abc import Callable, Sequence
from functools import partial

from distcalib.errors import MeasureError
from distcalib.quantize.candidate import Candidate
from distcalib.search import Answer, Ask, Measure, Rank, Request, Search


class SearchPath:
    """The way of `search` from its first question; it goes on whenever all that it asks is known.

    That may be in the middle of a round, and then what the round measures for a question that will not come need not
    be measured any more.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self.ask: Ask | None = None
        """What it asks now; None at its end."""
        self.winner: Candidate | None = None
        """What it returned; None before its end."""
        self._step(partial(next, search))

    def go_on(self, is_known: Callable[[Request], bool], answer: Callable[[Request], Answer]) -> None:
        """Answer what it asks, as long as all of that is known."""
        while self.ask is not None and all(is_known(request) for request in self.ask.wanted):
            self._step(partial(self._search.send, [answer(request) for request in self.ask.wanted]))

    @property
    def result(self) -> Candidate:
        """The winner, at its end.  Raises MeasureError for a strategy that has returned none."""
        if not isinstance(self.winner, Candidate):
            raise MeasureError("the strategy ended without a candidate; it must return one that it has had measured")
        return self.winner

    def may_ask(self, candidate: Candidate) -> bool:
        """Whether it asks about the candidate now, or probably will next."""
        return self.ask is not None and candidate in _candidates(self.ask)

    def measures(self, candidate: Candidate) -> bool:
        """Whether it asks now what the candidate scores over all iterations."""
        wanted = () if self.ask is None else self.ask.wanted
        return any(isinstance(request, Measure) and request.candidate == candidate for request in wanted)

    def _step(self, step: Callable[[], Ask]) -> None:
        try:
            self.ask = step()
        except StopIteration as stop:
            self.ask, self.winner = None, stop.value


def _candidates(ask: Ask) -> Sequence[Candidate]:
    return [request.candidate for request in (*ask.wanted, *ask.maybe) if not isinstance(request, Rank)]
