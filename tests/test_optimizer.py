from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.optim.optimizer import register_optimizer_step_post_hook

from minifast.fused import AdamW, FusedAdam
from minifast.layers import split_model
from minifast.optimizer import OptimWrapper


def three_groups():
    return [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear(2, 1)]


def train(opt, model, steps=3):
    for _ in range(steps):
        model(torch.ones(4, 2)).square().sum().backward()
        opt.step()
        opt.zero_grad()


def test_one_value_for_all_groups_or_one_for_each():
    opt = OptimWrapper.create(AdamW, [1e-4, 1e-3, 1e-2], three_groups(), wd=0.1)
    assert opt.values("lr") == [1e-4, 1e-3, 1e-2] and opt.lr == 1e-2
    opt.lr = 0.5
    assert opt.values("lr") == [0.5] * 3
    opt.wd = [0.1, 0.2, 0.3]
    assert opt.values("wd") == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"lr=\[1, 2\] has 2 values for 3 layer groups"):
        opt.lr = [1, 2]


def test_momentum_and_beta_live_where_the_optimizer_keeps_them():
    adam = OptimWrapper.create(AdamW, 1e-3, three_groups())
    assert (adam.mom, adam.beta) == (0.9, 0.99)
    adam.mom = 0.85
    assert adam.opt.param_groups[0]["betas"] == (0.85, 0.99)
    adam.beta = 0.9
    assert adam.opt.param_groups[2]["betas"] == (0.85, 0.9)
    sgd = OptimWrapper.create(partial(optim.SGD, momentum=0.7), 1e-3, three_groups())
    sgd.mom = 0.8
    assert sgd.opt.param_groups[1]["momentum"] == 0.8 and sgd.beta is None
    rms = OptimWrapper.create(optim.RMSprop, 1e-3, three_groups())
    rms.beta = 0.5
    assert rms.opt.param_groups[0]["alpha"] == 0.5


def test_any_key_of_the_groups_can_be_set_and_others_are_named():
    opt = OptimWrapper.create(AdamW, 1e-3, three_groups())
    opt.set("eps", 1e-5)
    assert opt.values("eps") == [1e-5] * 3
    with pytest.raises(KeyError, match="Adam has no hyper-parameter 'epps'.*Did you mean 'eps'"):
        opt.set("epps", 1)
    with pytest.raises(KeyError, match="Adagrad has no hyper-parameter 'mom'"):
        OptimWrapper.create(optim.Adagrad, 1e-3, three_groups()).mom = 0.9
    with pytest.raises(AttributeError):
        opt.momentum


@pytest.mark.parametrize("decoupled", [True, False])
def test_the_default_is_torchs_fused_adam_to_the_bit(decoupled):
    ours, theirs = (nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    opt = OptimWrapper.create(AdamW, 0.1, [ours], wd=0.3, true_wd=decoupled)
    twin = optim.Adam(theirs.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.3, fused=True,
                      decoupled_weight_decay=decoupled)
    train(opt, ours, 5)
    train(twin, theirs, 5)
    assert type(opt.opt) is FusedAdam
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    for (p, s), (q, t) in zip(opt.opt.state.items(), twin.state.items(), strict=True):
        assert torch.equal(p, q) and s.keys() == t.keys() and all(torch.equal(s[k], t[k]) for k in s)


def test_hooks_on_the_default_optimizers_step_are_called():
    net, heard = nn.Linear(2, 1), []
    opt = OptimWrapper.create(AdamW, 0.1, [net]).opt
    handles = [opt.register_step_pre_hook(lambda *_: heard.append("before")),
               register_optimizer_step_post_hook(lambda *_: heard.append("after"))]
    train(opt, net, 2)
    for handle in handles:
        handle.remove()
    train(opt, net, 1)
    assert heard == ["before", "after"] * 2


@pytest.mark.parametrize("opt_func", [AdamW, partial(optim.SGD, momentum=0.9)])
@pytest.mark.parametrize("how", ["relaid", "loaded"])
def test_the_state_follows_its_parameters_into_another_memory_layout(opt_func, how):
    torch.manual_seed(0)
    ours, twin = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    twin.load_state_dict(ours.state_dict())
    opt, other = (OptimWrapper.create(opt_func, 0.1, [net]) for net in (ours, twin))
    x = torch.randn(8, 3, 5, 5)

    def steps(opt, net, n):
        for _ in range(n):
            net(x).square().mean().backward()
            opt.step()
            opt.zero_grad()

    steps(opt, ours, 3)
    steps(other, twin, 3)
    if how == "loaded":
        saved = opt.state_dict()
        opt = OptimWrapper.create(opt_func, 0.1, [ours.to(memory_format=torch.channels_last)])
        opt.load_state_dict(saved)
    else:
        ours.to(memory_format=torch.channels_last)
        opt.align()
    assert ours.weight.stride() != twin.weight.stride()
    steps(opt, ours, 3)
    steps(other, twin, 3)
    assert torch.allclose(ours.weight, twin.weight, atol=1e-5)


def conv_pair():
    torch.manual_seed(0)
    ours, twin = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    twin.load_state_dict(ours.state_dict())
    return ours, twin, OptimWrapper.create(AdamW, 0.1, [ours]), OptimWrapper.create(optim.Adam, 0.1, [twin])


@pytest.mark.parametrize("spoil", [
    lambda net: net.to(memory_format=torch.channels_last),
    lambda net: setattr(net.weight, "grad", net.weight.grad.contiguous(memory_format=torch.channels_last))])
def test_whatever_is_laid_out_anew_between_two_steps_is_stepped_right(spoil):
    ours, twin, opt, other = conv_pair()
    other.opt.param_groups[0]["betas"] = opt.opt.param_groups[0]["betas"]
    x = torch.randn(8, 3, 5, 5)
    for i in range(6):
        for net, wrapper in ((ours, opt), (twin, other)):
            net(x).square().mean().backward()
            if net is ours and i == 3:
                spoil(net)
            wrapper.step()
            wrapper.zero_grad()
    assert torch.allclose(ours.weight, twin.weight, atol=1e-5)


@pytest.mark.parametrize("key", ["amsgrad", "maximize"])
def test_the_default_optimizers_other_ways_are_torchs(key):
    ours, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(ours.state_dict())
    opt = OptimWrapper.create(AdamW, 0.1, [ours])
    opt.set(key, True)
    theirs = optim.Adam(twin.parameters(), 0.1, opt.opt.param_groups[0]["betas"], fused=True, **{key: True})
    for i in range(4):
        for net, stepped in ((ours, opt), (twin, theirs)):
            net(torch.full((2, 3), 1.0 - i)).square().mean().backward()
            stepped.step()
            stepped.zero_grad()
    assert torch.equal(ours.weight, twin.weight)


def test_parameters_with_gaps_in_memory_are_not_given_to_the_fused_kernel():
    base = torch.zeros(4, 4)
    p = nn.Parameter(base[:, :2])
    p.grad = torch.ones(4, 2)
    opt = AdamW([{"params": [p]}], 0.1)
    opt.step()
    assert type(opt) is optim.Adam and not base[:, 2:].any() and bool((base[:, :2] < 0).all())


def test_a_loaded_state_counts_its_steps_on_the_parameters_device():
    net = nn.Linear(2, 1)
    opt = OptimWrapper.create(AdamW, 0.1, [net])
    train(opt, net, 1)
    saved = opt.state_dict()
    elsewhere = OptimWrapper(FusedAdam([{"params": list(nn.Linear(2, 1, device="meta").parameters())}]))
    elsewhere.load_state_dict(saved)
    assert {t.device.type for s in elsewhere.opt.state.values() for t in s.values()} == {"meta"}


def test_the_default_falls_back_to_torchs_adam():
    double = nn.Linear(2, 2).double()
    assert type(OptimWrapper.create(AdamW, 0.1, [double]).opt) is optim.Adam
    assert type(OptimWrapper.create(partial(AdamW, amsgrad=True), 0.1, [nn.Linear(2, 2)]).opt) is optim.Adam


def test_decoupled_decay_is_torchs_adamw():
    torch.manual_seed(1)
    ours, theirs = nn.Linear(2, 2), nn.Linear(2, 2)
    theirs.load_state_dict(ours.state_dict())
    train(OptimWrapper.create(AdamW, 0.1, [ours], wd=0.3), ours)
    train(optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.3), theirs)
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-6, atol=0)


def test_coupled_decay_is_the_optimizers_own():
    ours, theirs = nn.Linear(2, 2), nn.Linear(2, 2)
    theirs.load_state_dict(ours.state_dict())
    train(OptimWrapper.create(optim.SGD, 0.1, [ours], wd=0.3, true_wd=False), ours)
    train(optim.SGD(theirs.parameters(), lr=0.1, weight_decay=0.3), theirs)
    assert torch.equal(ours.weight, theirs.weight)


def test_an_optimizers_own_default_decay_does_not_come_on_top():
    opt = OptimWrapper.create(optim.AdamW, 0.1, three_groups(), wd=0.0)      # torch's AdamW decays by 0.01 by default
    assert [g["weight_decay"] for g in opt.opt.param_groups] == [0.0] * 3


def test_bn_wd_false_spares_norms_and_biases():
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = [p.detach().clone() for p in layers.parameters()]
    opt = OptimWrapper.create(partial(optim.SGD, momentum=0.0), 1.0, [layers], wd=0.5, bn_wd=False)
    for p in layers.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    decayed = [torch.equal(a, b * 0.5) and bool(b.any()) for a, b in zip(layers.parameters(), before, strict=True)]
    assert decayed == [True, False, False, False]
    assert opt.values("wd") == [0.5] and opt.n_groups == 1


def test_parameters_without_a_gradient_do_not_decay():
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    OptimWrapper.create(optim.SGD, 1.0, [layer], wd=0.5).step()
    assert torch.equal(layer.weight, before)


def test_a_parameter_in_two_groups_is_trained_once():
    shared = nn.Linear(2, 2)
    opt = OptimWrapper.create(optim.SGD, 1.0, [shared, nn.Sequential(shared, nn.Linear(2, 1))])
    assert [len(g["params"]) for g in opt.opt.param_groups] == [2, 2]


def test_nothing_to_train_is_named():
    layer = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        OptimWrapper.create(optim.SGD, 1.0, [layer])


def test_state_goes_out_and_back_with_the_hyper_parameters():
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    b.load_state_dict(a.state_dict())
    one, two = OptimWrapper.create(AdamW, 0.1, [a], wd=0.2), OptimWrapper.create(AdamW, 0.5, [b])
    train(one, a)
    b.load_state_dict(a.state_dict())
    two.load_state_dict(one.state_dict())
    assert (two.lr, two.wd) == (0.1, 0.2)
    train(one, a)
    train(two, b)
    assert torch.equal(a.weight, b.weight)
    two.clear()
    assert not two.opt.state


def test_wrapping_twice_is_refused():
    opt = OptimWrapper.create(AdamW, 0.1, [nn.Linear(2, 1)])
    with pytest.raises(TypeError, match="wrapped already"):
        OptimWrapper(opt)


@pytest.mark.parametrize("in_groups", [False, True])
def test_bn_wd_false_spares_the_biases_of_attention_and_recurrent_layers_too(in_groups):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.rnn = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.GRU(4, 4)
            self.unbiased = nn.Parameter(torch.zeros(1))
    net = Net()
    groups = split_model(net, [net.rnn]) if in_groups else [net]
    opt = OptimWrapper.create(optim.SGD, 0.1, groups, wd=0.5, bn_wd=False)
    spared = {id(p) for g in opt.opt.param_groups if not g["decays"] for p in g["params"]}
    assert {name for name, p in net.named_parameters() if id(p) in spared} == {
        name for name, _ in net.named_parameters() if "bias" in name.replace("unbiased", "") or "norm" in name}
    assert len(spared) == 10
