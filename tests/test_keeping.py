"""A value of any type goes through a file and comes back with its type, into the objects that are there."""
import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import random
import uuid

import numpy as np
import pytest
import torch
from torch import nn, optim

from minifast.files import load_file, save_file
from minifast.keeping import Kept, same
from minifast.restoring import put_back


class Phase(enum.Enum):
    WARM, COOL = 0, 1


class Text(enum.StrEnum):
    A, B = "a", "b"


@dataclasses.dataclass
class Best:
    value: float = 0.0
    seen: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: float = 0.0


class Plain:
    def __init__(self, k):
        self.k, self.inner = k, Best(1.0)


class Slots:
    __slots__ = ("a",)

    def __init__(self, a): self.a = a


Pair = collections.namedtuple("Pair", "a b")


class MyList(list):
    pass


def with_optimizer(k):
    torch.manual_seed(0)
    net = nn.Linear(2, 2)
    opt = optim.Adam(net.parameters(), 0.1)
    for _ in range(k):
        opt.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        opt.step()
    return [net, opt, optim.lr_scheduler.StepLR(opt, 1)]


def counts(k):
    n = k

    def count():
        nonlocal n
        n += 1
        return n
    return count


def own_list(k):
    found = MyList([k])
    found.extra = k
    return found


# how a value of each kind is made, in two versions
KINDS = {
    "array": lambda k: np.full(3, k), "float32": lambda k: np.float32(k), "float64": lambda k: np.float64(k) / 3,
    "bool_": lambda k: np.bool_(k % 2), "texts": lambda k: np.array(["a" * k]),
    "objects": lambda k: np.array([k, None, Best(k)], object), "dates": lambda k: np.array(["2020-01-01"], "M8[D]") + k,
    "record": lambda k: np.array([(k, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked": lambda k: np.ma.MaskedArray([k, 2], [False, True]), "big-endian": lambda k: np.array([k], ">f4"),
    "array.array": lambda k: array.array("d", [k]), "bytearray": lambda k: bytearray([k]),
    "Counter": lambda k: collections.Counter({"x": k}), "OrderedDict": lambda k: collections.OrderedDict(b=k, a=1),
    "defaultdict": lambda k: collections.defaultdict(list, {"a": [k]}), "deque": lambda k: collections.deque([k], 3),
    "set": lambda k: {k, "q"}, "frozenset": lambda k: frozenset([k]), "named tuple": lambda k: Pair(k, [k]),
    "enum": lambda k: list(Phase)[k % 2], "text enum": lambda k: list(Text)[k % 2],
    "tuple keys": lambda k: {(1, "a"): k}, "nest": lambda k: {"a": [(k, {"b": {k}})]},
    "dataclass": lambda k: Best(k, [k]), "frozen": lambda k: Frozen(k), "object": Plain, "slots": Slots,
    "own list": own_list, "Random": random.Random, "Generator": np.random.default_rng,
    "RandomState": np.random.RandomState, "Philox": np.random.Philox, "MT19937": np.random.MT19937,
    "torch.Generator": lambda k: torch.Generator().manual_seed(k), "net, optimizer": with_optimizer,
    "scaler": lambda k: torch.amp.GradScaler("cpu", init_scale=2.0**k),
    "parameter": lambda k: torch.full((2,), float(k), requires_grad=True), "half": lambda k: torch.ones(2).half() * k,
    "path": lambda k: pathlib.Path(str(k)), "complex": lambda k: complex(k, 1), "range": range,
    "date": lambda k: datetime.datetime(2020, 1, k), "decimal": lambda k: decimal.Decimal(k) / 3,
    "fraction": lambda k: fractions.Fraction(k, 7), "uuid": lambda k: uuid.UUID(int=k), "closure": counts,
    "size": lambda k: torch.Size([k]), "bound method": lambda k: np.random.default_rng(k).normal,
    "partial": lambda k: functools.partial(max, [k]), "dict with our key": lambda k: {"kept as": k},
}
BY_VALUE = {"float32", "float64", "bool_", "frozenset", "named tuple", "enum", "text enum", "path", "complex", "range",
            "date", "decimal", "fraction", "uuid", "size", "empty bytes", "empty texts"}


def through_file(value, folder):
    kept = Kept(value)
    assert kept.lost == []
    return load_file(save_file(kept.value, folder / "x.pth"))


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_comes_back_into_what_is_there(name, tmp_path):
    old, living = KINDS[name](3), KINDS[name](6)
    kept, lost = through_file(old, tmp_path), []
    back = put_back(living, kept, lost=lost)
    assert lost == [] and type(back) is type(old)
    assert same(Kept(back).value, Kept(old).value)
    if name not in BY_VALUE and name != "texts":    # texts of another length do not go into that array
        assert back is living


@pytest.mark.parametrize("name", [n for n in KINDS if n not in {
    "objects", "named tuple", "enum", "text enum", "dataclass", "frozen", "object", "slots", "own list", "closure",
    "net, optimizer", "scaler", "bound method", "partial"}])
def test_a_kind_of_the_library_comes_back_where_nothing_is(name, tmp_path):
    old, lost = KINDS[name](3), []
    back = put_back(None, through_file(old, tmp_path), lost=lost)
    assert lost == [] and type(back) is type(old) and same(Kept(back).value, Kept(old).value)


def test_a_class_is_never_looked_up():
    lost = []
    assert put_back({"best": None}, Kept({"best": Best(1.0)}).value, lost=lost) == {"best": None}
    assert lost == [("best", "Best")]
    known = {f"{Best.__module__}.Best": Best}
    assert put_back({"best": None}, Kept({"best": Best(1.0)}).value, classes=known) == {"best": Best(1.0)}


def test_two_values_that_were_one_object_when_they_began():
    living = {"best": Best(0.0)}
    living["now"] = living["best"]
    back = put_back(living, Kept({"best": Best(1.0), "now": Best(2.0)}).value)
    assert back == {"best": Best(1.0), "now": Best(2.0)}


def test_what_is_shared_stays_shared_and_rings_are_no_trouble():
    ring = [1]
    ring.append(ring)
    back = put_back({}, Kept({"a": ring, "b": ring}).value)
    assert back["a"] is back["b"] is back["a"][1]


def test_what_cannot_be_kept_is_named():
    kept = Kept({"fine": 1, "inner": Plain(iter([1])), "numbers": (i for i in range(3))})
    assert kept.lost == [("inner.k", "list_iterator"), ("numbers", "generator")]


def test_code_files_and_locks_are_the_programs_own(tmp_path):
    import logging
    import threading
    with open(tmp_path / "x", "w") as file:
        value = {"file": file, "lock": threading.Lock(), "log": logging.getLogger("x"), "f": len, "cls": Best}
        assert Kept(value).lost == []


def test_functions_that_remember_tensors():
    """A closure's variable may be None at first; the next process finds it as it was when the run was cut."""
    def smoothing():
        mean = None

        def smooth(x):
            nonlocal mean
            mean = x.clone() if mean is None else 0.5 * (mean + x)
            return mean
        return smooth
    old, new = smoothing(), smoothing()
    old(torch.tensor(4.0))
    lost = []
    assert put_back(new, Kept(old).value, lost=lost) is new and lost == []
    assert new(torch.tensor(0.0)) == old(torch.tensor(0.0)) == 2


@pytest.mark.parametrize("make", [lambda: torch.eye(3).to_sparse(), lambda: torch.eye(3).to_sparse_csr()])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_are_kept(make, tmp_path):
    back = put_back(None, through_file(make(), tmp_path))
    assert back.layout == make().layout and torch.equal(back.to_dense(), torch.eye(3))
    assert not same(make(), make())     # torch has no equal for them: always written


class Own(torch.Tensor):
    pass


def test_tensors_of_a_class_of_the_users_can_be_written(tmp_path):
    living = torch.zeros(2).as_subclass(Own)
    assert put_back(living, through_file(torch.ones(2).as_subclass(Own), tmp_path)) is living
    assert living.tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_named():
    assert Kept({"x": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])}).lost == [("x", "Tensor")]


def test_own_things_are_kept_as_names():
    net = nn.Linear(1, 1)
    kept = Kept({"net": net, "list": [net.weight]}, {id(net): "model", id(net.weight): "weight"}).value
    other = copy.deepcopy(net)
    back = put_back({}, kept, {"model": other, "weight": other.weight})
    assert back["net"] is other and back["list"][0] is other.weight


@pytest.mark.parametrize("kept", [{"kept as": "Counter"}, {"kept as": "os.system", "state": "x"}, {"kept as": 7},
                                  {"kept as": "numpy array", "state": {"dtype": "O", "shape": (1,), "bytes": b"1" * 8}},
                                  {"kept as": "Generator", "state": {"bit_generator": "eval"}}, object()])
def test_what_is_made_by_hand_is_a_value_error(kept):
    with pytest.raises(ValueError):
        put_back(None, kept)
