"""Which records were left out, in a list and in a sentence."""

import random

from distcalib.data import LeftOut
from distcalib.report import bad_records


def test_records_are_listed_once_in_order_and_counted_beyond_the_list() -> None:
    found = [LeftOut("data", number, f"'{number}'", "is not a Datum") for number in range(250)]
    mixed = random.Random(3).sample([*found, *found], 500)
    made = bad_records(mixed, 10_000)
    assert (made.count, made.n_records) == (250, 10_000)
    assert list(made.listed) == found[:100]
    assert made.line == (
        "250 of 10,000 records could not be read and were left out: '0' is not a Datum, '1' is not a Datum, '2' is not "
        "a Datum and 247 more"
    )


def test_one_record_is_told_as_one() -> None:
    made = bad_records([LeftOut("data", 4, "'4'", "is not a Datum")], 9)
    assert made.line == "1 of 9 records could not be read and was left out: '4' is not a Datum"


def test_a_name_of_thousands_of_letters_is_cut() -> None:
    line = bad_records([LeftOut("data", 4, f"line 5: '{'x' * 5000}'", "cannot be read")], 9).line
    assert len(line) < 600
    assert line.endswith("xxx' cannot be read")
