"""--recover auto: where all INT8 loses too much, new weights before layers in FP32.

Two steps, each of which costs a pass over the sampled iterations and what shows that all INT8 still loses too much:
the biases are corrected; then channels are scaled as well.  The first that meets the tolerance is kept; else the one
that loses least, if it loses much less than the weights given, for a caffemodel of its own is a price too.
"""

from distcalib.calibration.goal import Goal
from distcalib.calibration.observation import Observing
from distcalib.calibration.results import Observed
from distcalib.calibration.search_driver import Searching
from distcalib.search.price import Loss

WORTH = 0.75
"""New weights are kept where all INT8 loses at most this part of what it loses with those given."""


def recovered_search(searching: Searching, observed: Observed, observing: Observing) -> tuple[Searching, Observed]:
    """What it was given, or the search of the net with the weights that are kept, and what that was made from."""
    goal, start = searching.goal, searching.programs.start
    if not goal.options.may_recover or not start.int8:
        return searching, observed
    [given] = searching.losses(None, [start])
    if _meets(given, goal):
        return searching, observed
    least, kept = WORTH * given.drop, (searching, observed)
    for made, tried in observing.recovered(observed):
        other = searching.other(made, tried.calibration)
        [found] = other.losses(None, [start])
        if _meets(found, goal) or found.drop < least:
            least, kept = found.drop, (other, tried)
        if _meets(found, goal):
            break
    chosen = kept[0]
    if chosen is not searching:
        searching.meter.note(f"{chosen.label}all INT8 loses less, so these weights are kept, in a new caffemodel")
    chosen.label = ""
    return kept


def _meets(found: Loss, goal: Goal) -> bool:
    return not found.about and goal.is_met(found.drop)
