"""How many candidates are looked into before they are asked for."""

from distcalib.calibration.lookahead import n_ahead


def test_n_ahead_is_nothing_where_actors_have_enough_to_do() -> None:
    assert n_ahead(1, 1, 100, 0.03, 0.25) == 0
    assert n_ahead(1, 2, 1000, 0.5, 1.0) == 0
    assert n_ahead(20, 64, 100, 0.03, 0.25) <= 2


def test_n_ahead_does_not_look_into_what_would_be_a_surprise() -> None:
    assert n_ahead(1, 2, 100, 0.01, 0.25, n_likely=1) == 1
    assert n_ahead(1, 2, 100, 0.01, 0.25, n_likely=0) == 0
    assert n_ahead(1, 1024, 1000, 0.5, 1.0, n_likely=2) < n_ahead(1, 1024, 1000, 0.5, 1.0)


def test_n_ahead_grows_with_idle_actors() -> None:
    assert n_ahead(1, 64, 100, 0.03, 0.25) >= 4
    assert n_ahead(1, 1024, 1000, 0.5, 1.0) >= 4


def test_n_ahead_counts_what_the_driver_does_for_each() -> None:
    assert 1 <= n_ahead(1, 4096, 1000, 0.25, 0.5) < n_ahead(1, 1024, 1000, 0.25, 0.5)
