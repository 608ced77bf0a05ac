"""Flags and values as words of a command."""

from distcalib.session.flag_words import flag_words


def test_a_value_that_begins_with_a_dash_is_part_of_its_flag() -> None:
    assert flag_words("-n", "accuracy") == ("-n", "accuracy")
    assert flag_words("-n", "-acc") == ("-n=-acc",)
    assert flag_words("-i", 18) == ("-i", "18")
