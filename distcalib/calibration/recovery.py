"""--recover auto: where all INT8 loses too much, new weights before layers in FP32.

Two steps, each of which costs a pass over the sampled iterations and what shows that all INT8 still loses too much: the
biases are corrected; or channels are scaled as well, where that changes something.  Biases come first, for the weights
stay what they were, unless all INT8 loses many times what is tolerated: what a layer loses to channels of many sizes no
bias brings back (resnet20 with 3 and 5 planted layers loses 0.13 and 0.4, where 0.005 is tolerated, and half of that
with corrected biases).  The first that meets the tolerance is kept; else the one that loses least, if it loses much
less than the weights given, for a caffemodel of its own is a price too.
"""

from collections.abc import Iterator

from distcalib.calibration.observation import Observing
from distcalib.calibration.results import Observed
from distcalib.calibration.search_driver import Searching

WORTH = 0.75
"""New weights are kept where all INT8 loses at most this part of what it loses with those given."""
FAR = 8.0
"""Channels are scaled at once where all INT8 loses more than so many times the tolerance."""


def recovered_search(
    searching: Searching, observed: Observed, observing: Observing
) -> Iterator[tuple[Searching, Observed]]:
    """The search of the net with other weights, and what that was made from, whenever they are better; the last counts.

    Nothing where all INT8 meets the tolerance as it is, or nothing was better.
    """
    goal, start = searching.goal, searching.programs.start
    if not goal.options.may_recover or not start.int8:
        return
    [given] = searching.losses(None, [start])
    if given.meets(goal.options.accuracy_loss):
        return
    least, kept = WORTH * given.drop, ""
    is_far = given.drop > FAR * goal.options.accuracy_loss
    for made, tried in observing.recovered(observed, is_far):
        other = searching.other(made, tried.calibration)
        [loss] = other.losses(None, [start])
        meets = loss.meets(goal.options.accuracy_loss)
        if meets or loss.drop < least:
            least, kept, other.label = loss.drop, made, ""
            yield other, tried
        if meets or searching.budget.is_spent:
            break
    searching.meter.note(
        f"{kept}: all INT8 loses {least:.2g}, {given.drop:.2g} before, so the search goes on with these weights"
        if kept
        else "new weights do not help enough; the search goes on with those given"
    )
