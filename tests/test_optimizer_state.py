"""Saved states of optimizers: what does not belong is named, and nothing is changed before."""
import copy
from functools import partial

import pytest
import torch
from torch import nn, optim

from minifast.fused import AdamW
from minifast.optimizer import OptimWrapper


def trained(opt_func=AdamW):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    opt = OptimWrapper.create(opt_func, 0.1, [net], wd=0.1)
    net(torch.ones(4, 3)).square().sum().backward()
    opt.step()
    return net, opt


def first(state):
    return state["state"][0]


SPOILT = {
    "empty": (lambda s: s.clear(), "holds no 'state'"),
    "no groups": (lambda s: s.pop("param_groups"), "holds no 'param_groups'"),
    "groups of text": (lambda s: s.update(param_groups=["x"]), "a group without 'params'"),
    "another number of parameters": (lambda s: s["param_groups"][0]["params"].pop(), "not that of .* over these"),
    "parameter by name": (lambda s: s["param_groups"][0].update(params=["a", "b"]), "names a parameter 'a'"),
    "state of text": (lambda s: s["state"].update({0: "x"}), r"shape \(2, 3\) is str"),
    "no moment": (lambda s: first(s).pop("exp_avg"), "lacks exp_avg"),
    "moment of text": (lambda s: first(s).update(exp_avg="x"), "holds a text for exp_avg"),
    "moment a list": (lambda s: first(s).update(exp_avg=[1.0]), "holds a list for exp_avg"),
    "short moment": (lambda s: first(s).update(exp_avg=torch.zeros(1)), r"float32 \(1,\) on cpu for exp_avg"),
    "moment of whole numbers": (lambda s: first(s).update(exp_avg=torch.zeros(2, 3).int()), "int32"),
    "sparse moment": (lambda s: first(s).update(exp_avg=torch.zeros(2, 3).to_sparse()), "exp_avg"),
    "no step": (lambda s: first(s).pop("step"), "needs one number for step"),
    "two steps": (lambda s: first(s).update(step=torch.zeros(2)), r"one number for step: float32 \(2,\)"),
    "lr of text": (lambda s: s["param_groups"][0].update(lr="x"), "'lr' in .* must be a number, not 'x'"),
    "one beta": (lambda s: s["param_groups"][0].update(betas=(0.9,)), "betas"),
    "no lr": (lambda s: s["param_groups"][0].pop("lr"), "lacks 'lr'"),
}


@pytest.mark.parametrize("spoil, says", SPOILT.values(), ids=SPOILT)
def test_what_cannot_be_loaded_is_named_and_nothing_is_changed(spoil, says):
    _, opt = trained()
    before, bad = copy.deepcopy(opt.state_dict()), copy.deepcopy(opt.state_dict())
    spoil(bad)
    with pytest.raises(ValueError, match=says):
        opt.load_state_dict(bad)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(after["state"][i][k], before["state"][i][k]) for i in before["state"]
               for k in before["state"][i])


@pytest.mark.parametrize("bad", [None, 3, "x", [1]])
def test_what_is_no_state_at_all(bad):
    with pytest.raises(ValueError, match="is a .*, not a dict"):
        trained()[1].load_state_dict(bad)


def test_momentum_that_was_not_there_yet_and_keys_of_newer_files_are_no_fault():
    net, opt = trained(partial(optim.SGD, momentum=0.9))
    state = copy.deepcopy(opt.state_dict())
    first(state)["momentum_buffer"] = None
    del state["param_groups"][0]["maximize"]
    opt.load_state_dict(state)
    assert opt.values("maximize") == [False]
    net(torch.ones(4, 3)).sum().backward()
    opt.step()
    assert torch.equal(opt.opt.state[net.weight]["momentum_buffer"], net.weight.grad)


def test_a_state_follows_its_parameter_to_another_dtype():
    net, opt = trained()
    old = opt.opt.state[net.weight]["exp_avg"].clone()
    net.double()
    opt.align()
    assert torch.equal(opt.opt.state[net.weight]["exp_avg"], old.double())
    net(torch.ones(4, 3, dtype=torch.float64)).square().sum().backward()
    opt.step()
    assert opt.kernel.usable


def embedding(opt_func):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    before = copy.deepcopy(net.state_dict())
    opt = OptimWrapper.create(opt_func, 0.1, [net], wd=0.1)
    net(torch.tensor([1, 2])).sum().backward()
    return net, opt, before


@pytest.mark.parametrize("opt_func", [AdamW, optim.AdamW, optim.RMSprop, optim.SparseAdam])
def test_sparse_gradients_are_refused_by_name_before_a_weight_changes(opt_func):
    net, opt, before = embedding(opt_func)
    with pytest.raises(RuntimeError, match=r"1 of 3 parameters have sparse gradients.*SGD.*SparseAdam.*sparse=True"):
        opt.step()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")    # torch's own, in its Adagrad
@pytest.mark.parametrize("opt_func", [optim.SGD, optim.Adagrad])
def test_sparse_gradients_train_where_torch_can(opt_func):
    net, opt, before = embedding(opt_func)
    opt.step()
    assert (net[0].weight[1] != before["0.weight"][1]).any()
