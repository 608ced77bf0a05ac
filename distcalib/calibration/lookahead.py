"""How many candidates that will probably be asked for are worth measuring together with those that are."""

from math import ceil

from distcalib.actors.dispatcher import DRIVER_SECONDS, n_useful

# The chance that a candidate named as likely is asked for, and that of the next one if it is; and of one that only a
# surprise would ask for.
LIKELY, UNLIKELY = 0.8, 0.2


def n_ahead(
    n_wanted: int,
    n_actors: int,
    n_iterations: int,
    iteration_seconds: float,
    compile_seconds: float,
    n_likely: int = 16,
    share: float = 1.0,
) -> int:
    """The number of further candidates that makes the time for each one that will have been of use least; of these
    `n_likely` are, and the others may be asked for after a surprise only.  `share`: of the iterations that decide one.

    While a program is compiled by one actor the others wait, and where there are more actors than iterations some
    have nothing to do: with several candidates at once they have.
    """

    n_wide = min(n_iterations, n_useful(n_iterations * iteration_seconds, n_actors))

    def seconds_each(n_more: int) -> float:
        n = n_wanted + n_more
        n_busy = min(n_actors, n * n_wide)
        compiling = ceil(n / n_actors) * compile_seconds
        running = max(1.0, n * n_iterations * share / n_busy) * iteration_seconds
        n_of_use = n_wanted + sum(LIKELY ** (i + 1) for i in range(min(n_more, n_likely)))
        n_of_use += sum(UNLIKELY * LIKELY**i for i in range(n_more - n_likely))
        return (compiling + running + max(n, n_busy) * DRIVER_SECONDS) / n_of_use

    return min(range(16), key=lambda n: (seconds_each(n), n))
