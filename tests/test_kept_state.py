"""State of many kinds in many places goes on with a run, and lr_find leaves it as it was; the long form, in which all
kinds are crossed with all places, is `make torture`."""
import pytest
from torture.kept_state import LOADERS, place, resumed, searched

EXACT = [("None at first", "a callback"), ("bytes", "a callback"), ("queue", "a model"), ("shared number", "a loss"),
         ("namespace", "a transform"), ("nest", "a data set"), ("ring", "a data set"), ("tuple", "a data set"),
         ("network, optimizer, schedule", "a callback"), ("scripted module", "a model"), ("sparse tensor", "a model"),
         ("object array", "a callback"), ("method of a generator", "a transform"), ("shared list", "a model"),
         ("list", "a loss function's closure"), ("object", "a loss function's closure"),
         ("closure that remembers", "a data set"), ("UserList", "a loss")]
NAMED = [("iterator", "a model"), ("generator", "a data set"), ("count", "a loss function's closure")]
RANDOM = ["generator of the sampler", "batch sampler with Random", "sampler that counts", "noise in a validation",
          "stream", "own loader with numpy", "collate function"]
pytestmark = [pytest.mark.filterwarnings("ignore:.*jit.script")]


@pytest.mark.parametrize(("kind", "where"), EXACT)
def test_state_goes_on_exactly(kind, where):
    assert resumed(place(kind, where), 7) == ""
    assert searched(place(kind, where)) == ""


@pytest.mark.parametrize(("kind", "where"), [("Random", "a data set"), ("tensor", "a model")])
def test_state_goes_on_exactly_in_a_validation(kind, where):
    assert resumed(place(kind, where), 10, in_validation=True) == ""


@pytest.mark.parametrize(("kind", "where"), NAMED)
def test_what_cannot_go_on_is_named(kind, where):
    assert "a checkpoint cannot keep this" in resumed(place(kind, where), 7)
    assert "cannot be put back" in searched(place(kind, where))


@pytest.mark.parametrize("name", RANDOM)
def test_loaders_with_generators_of_their_own(name):
    assert resumed(LOADERS[name], 7) == ""
    assert searched(LOADERS[name]) == ""


def test_workers_that_are_kept():
    """The order is that of the uncut run; what items draw in such workers goes on there, and that is said."""
    found = resumed(LOADERS["persistent workers, generator"], 7)
    assert found.startswith("exact, and yet it says") and "persistent workers" in found
