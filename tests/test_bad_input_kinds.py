"""Bad input of many kinds gets a named error before any training, and nothing is lost. Long: `make torture`."""
import pytest
from test_bad_input import CASES
from torture.bad_input import KINDS, NUMBERS, trial, try_numbers


@pytest.mark.parametrize("name", KINDS)
def test_bad_input_is_named_and_nothing_is_lost(tmp_path, name):
    assert trial(*KINDS[name], tmp_path) == ""


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_or_named_whatever_it_is(tmp_path, name):
    try_numbers(name, 12, tmp_path)


def test_there_are_as_many_kinds_as_promised():
    assert len(KINDS) >= 60 and len(KINDS) + len(CASES) >= 200
