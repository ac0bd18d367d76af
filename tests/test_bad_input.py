"""Bad input to the core: a named error that says what was wrong, with which value, and what to do."""
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils.data import IterableDataset

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.one_cycle import OneCycleScheduler
from minifast.data import DataBunch
from minifast.fakes import fake_data, fake_learner
from minifast.learner import Learner
from minifast.losses import CrossEntropyFlat
from minifast.metrics import accuracy
from minifast.stepper import Stepper
from minifast.suggestion import RangeTest, RangeTests

NAN, INF = float("nan"), float("inf")
CLASS = nn.CrossEntropyLoss
FOUND = RangeTest([1e-3, 1e-2], [2.0, 1.0])


def callback_with(**handlers):
    return type("Odd", (Callback,), handlers)()


def answering(answer, event="on_batch_end"):
    return callback_with(**{event: lambda self: answer})


def fit(*args, **kwargs):
    learner = {k: kwargs.pop(k) for k in [*kwargs] if k not in ("lr", "wd", "callbacks")}
    return lambda: fake_learner(**learner).fit(*args, **kwargs)


def one_cycle(*args, **kwargs):
    learner = {k: kwargs.pop(k) for k in [*kwargs] if k in ("opt_func", "layer_group_count")}
    return lambda: fake_learner(**learner).fit_one_cycle(*(args or (1, 1e-3)), **kwargs)


def find(*args, **kwargs):
    return lambda: fake_learner().lr_find(*args, **kwargs)


def grouped(method, *args):
    return lambda: getattr(fake_learner(layer_group_count=2), method)(*args)


def assigned(name, value):
    def act():
        learn = fake_learner()
        setattr(learn, name, value)
        learn.fit(1)
    return act


def data(**kwargs):
    return lambda: DataBunch(**{"train_dl": [(torch.zeros(2, 5), torch.zeros(2).long())], **kwargs})


class Stream(IterableDataset):
    def __iter__(self): return iter([(torch.zeros(2, 5), torch.zeros(2).long())])


def fits_stream():
    stream = torch.utils.data.DataLoader(Stream(), batch_size=None)
    Learner(DataBunch(stream, loss_func=CLASS()), nn.Linear(5, 4), silent=True).fit(1)


appending_wrongly = answering({"last_metrics": 3}, "on_epoch_end")
appending_wrongly._order = -20


class Data(LearnerCallback):
    pass


# what is done, the error, and what its message must say: what, which value, what to do
CASES = [
    # epochs
    (fit(0), ValueError, r"epochs must be at least 1, not 0"),
    (fit(-3), ValueError, r"epochs must be at least 1, not -3"),
    (fit(1.0), TypeError, r"epochs must be a whole number, not 1.0 \(float\)"),
    (fit("2"), TypeError, r"epochs must be a whole number, not '2' \(str\)"),
    (fit(True), TypeError, r"epochs must be a whole number, not True"),
    (fit(None), TypeError, r"epochs must be a whole number, not None"),
    (one_cycle(0, 1e-3), ValueError, r"epochs must be at least 1, not 0"),
    (one_cycle(1.5, 1e-3), TypeError, r"epochs must be a whole number, not 1.5"),

    # learning rates
    (fit(1, 0), ValueError, r"learning rate must be a finite number above 0, not 0"),
    (fit(1, -1e-3), ValueError, r"learning rate must be a finite number above 0, not -0.001"),
    (fit(1, NAN), ValueError, r"learning rate must be a finite number above 0, not nan"),
    (fit(1, INF), ValueError, r"learning rate must be a finite number above 0, not inf"),
    (fit(1, "1e-3"), TypeError, r"learning rate must be a number, not '1e-3' \(str\)"),
    (fit(1, None), TypeError, r"learning rate must be a number, not None"),
    (fit(1, {"lr": 1}), TypeError, r"learning rate must be a number, not \{'lr': 1\}"),
    (fit(1, [1e-3, 1e-2]), ValueError, r"lr=\[0.001, 0.01\] has 2 values for 1 layer group$"),
    (fit(1, [1e-3], layer_group_count=2), ValueError, r"has 1 values for 2 layer groups"),
    (fit(1, [1e-3, NAN], layer_group_count=2), ValueError, r"above 0, not nan"),
    (fit(1, slice(0, 1e-2)), ValueError, r"above 0, not 0"),
    (fit(1, slice(None)), TypeError, r"learning rate must be a number, not None"),
    (fit(1, FOUND), TypeError, r"learning rate must be a number, not a RangeTest: pass its \.suggestion$"),
    (one_cycle(1, slice(FOUND)), TypeError, r"not a RangeTest: pass its \.suggestion$"),
    (fit(1, RangeTests({"bs 8": FOUND, "bs 16": FOUND})),
     TypeError, r"must be a number, not a RangeTests: pass the \.suggestion of one: 'bs 8', 'bs 16'$"),
    (fit(1, FOUND.suggestion), ValueError, r"^the range test suggests no learning rate: too short: 2 finite losses"),
    (fit(1, slice(1e-5, 1e-4, 1e-3)), ValueError, r"slice\(1e-05, 0.0001, 0.001\) has three values.*give a list"),
    (one_cycle(1, -1), ValueError, r"learning rate must be a finite number above 0, not -1"),
    (one_cycle(1, [1, 2, 3]), ValueError, r"3 values for 1 layer group"),

    # weight decay
    (fit(1, wd=-1), ValueError, r"wd must be a finite number of at least 0, not -1"),
    (fit(1, wd=NAN), ValueError, r"wd must be a finite number of at least 0, not nan"),
    (fit(1, wd="0.1"), TypeError, r"wd must be a number, not '0.1'"),
    (fit(1, wd=[0.1, 0.2]), ValueError, r"wd=\[0.1, 0.2\] has 2 values for 1 layer groups"),
    (fit(1, wd=["0.1"]), TypeError, r"a value of wd must be a number, not '0.1'"),
    (lambda: fake_learner(wd=-0.1), ValueError, r"wd must be a finite number of at least 0, not -0.1"),
    (fit(1, wd=0.1, true_wd=False, opt_func=optim.Rprop), ValueError, r"Rprop has no weight decay.*true_wd=True"),

    # the one-cycle policy
    *[(one_cycle(pct_start=p), ValueError, rf"pct_start is the rising part.*above 0 and below 1, not {p}")
      for p in (0, 1, -0.1, 1.5, NAN)],
    (one_cycle(pct_start="0.3"), TypeError, r"pct_start must be a number, not '0.3'"),
    (one_cycle(pct_start=None), TypeError, r"pct_start must be a number, not None"),
    (one_cycle(div_factor=0), ValueError, r"div_factor must be a finite number above 0, not 0"),
    (one_cycle(div_factor=-25), ValueError, r"div_factor must be a finite number above 0, not -25"),
    *[(one_cycle(moms=m), ValueError, r"moms must be two momenta from 0 to below 1")
      for m in ((0.9,), (0.95, 0.85, 0.95), (1.0, 0.9), (-0.1, 0.9), (NAN, 0.9), 0.9)],
    (one_cycle(moms=("a", "b")), TypeError, r"a momentum must be a number, not 'a'"),
    (one_cycle(opt_func=optim.SGD),
     ValueError, r"SGD runs without momentum.*pass moms=None.*partial\(optim.SGD, momentum=0.9\)"),
    (one_cycle(opt_func=optim.Adagrad), ValueError, r"Adagrad runs without momentum.*moms=None"),
    (lambda: fake_learner(callback_fns=partial(OneCycleScheduler, lr_max=0)).fit(1), ValueError, r"above 0, not 0"),

    # the learning-rate finder
    (find(start_lr=0), ValueError, r"start_lr must be a finite number above 0, not 0"),
    (find(end_lr=NAN), ValueError, r"end_lr must be a finite number above 0, not nan"),
    (find(1, 0.1), ValueError, r"end_lr must be above start_lr, not 0.1 with start_lr=1.0"),
    (find(1, 1), ValueError, r"end_lr must be above start_lr"),
    (find(num_it=0), ValueError, r"num_it must be at least 1, not 0"),
    (find(num_it=10.0), TypeError, r"num_it must be a whole number, not 10.0"),
    (find([1e-5, 1e-4]), TypeError, r"start_lr must be a number, not \[1e-05, 0.0001\]"),

    # what a learner is made of
    (lambda: Learner([1], nn.Linear(1, 1)),
     TypeError, r"data must be a DataBunch, not list; DataBunch\(train_dl, valid_dl\)"),
    (lambda: Learner(fake_data(), lambda x: x), TypeError, r"model must be a torch.nn.Module, not function"),
    (lambda: Learner(fake_data(), nn.Linear), TypeError, r"model must be a torch.nn.Module, not type"),
    (lambda: Learner(data()(), nn.Linear(5, 4)), ValueError, r"no loss function of its own: pass loss_func="),
    (fit(1, loss_func=CLASS), TypeError, r"loss_func is the class CrossEntropyLoss: make an instance of it"),
    (fit(1, loss_func="mse"), TypeError, r"loss_func must be a function, not 'mse'"),
    (fit(1, opt_func="adam"), TypeError, r"opt_func must be a function, not 'adam'"),
    (lambda: fake_learner(opt_func=optim.SGD(nn.Linear(1, 1).parameters())),
     TypeError, r"opt_func must be a function, not SGD"),
    (fit(1, metrics=["accuracy"]), TypeError, r"metric must be a function or a callback, not 'accuracy'"),
    (fit(1, metrics=nn.MSELoss), TypeError, r"metric must be .*, not the class|make an instance"),
    (fit(1, callback_fns=[Callback()]),
     TypeError, r"callback_fns must be a function, not Callback\(\).*go to callbacks="),
    (fit(1, callback_fns=lambda learn: None), TypeError, r"callback must be an instance of Callback, not None"),
    (assigned("opt", optim.SGD(nn.Linear(1, 1).parameters())),
     TypeError, r"must be an OptimWrapper, not SGD: OptimWrapper\(opt\)"),
    (fit(1, opt_func=optim.LBFGS), TypeError, r"LBFGS runs the model several times a step.*choose another optimizer"),
    (fit(1, layers=[nn.Flatten()]), ValueError, r"no trainable parameter: unfreeze some"),

    # layer groups
    (lambda: fake_learner().freeze(), ValueError, r"one layer group.*cut it with learn.split first"),
    (grouped("freeze_to", 2), ValueError, r"no layer group 2: the model has 2, see learn.split"),
    (grouped("freeze_to", -3), ValueError, r"no layer group -3"),
    (grouped("freeze_to", "1"), ValueError, r"no layer group '1'"),
    (grouped("split", nn.Linear(1, 1)), ValueError, r"cannot split the model at Linear\(.*it is not in the model"),
    (grouped("split", []), ValueError, r"groups leave out 4 of the model's parameters"),
    (grouped("split", 3), TypeError, r"split_on must give modules of the model or lists of its layers, not 3"),
    (grouped("split", [5]), TypeError, r"split_on must give modules of the model or lists of its layers, not \[5\]"),
    (grouped("split", "1"), TypeError, r"split_on must give modules .*, not '1'"),
    (grouped("split", lambda model: [[model[0]], [1]]), TypeError, r"lists of its layers, not \[\[Linear.*\[1\]\]"),
    (grouped("split", lambda model: [model[1], [model[0]]]), TypeError, r"lists of its layers, not \[Linear"),
    (fit(1, layers=[nn.Linear(5, 5), nn.Linear(5, 4)], layer_groups=[nn.Linear(5, 4), nn.Linear(1, 1)]),
     ValueError, r"layer groups leave out some of the model's parameters: cut it again with learn.split"),

    # callbacks
    (fit(1, callbacks=Callback), TypeError, r"instance of Callback, not the class Callback: make an instance"),
    (fit(1, callbacks=[[Callback()]]), TypeError, r"instance of Callback, not \[Callback\(\)\]"),
    (fit(1, callbacks=partial(LearnerCallback)), TypeError, r"instance of Callback, not functools.partial"),
    (fit(1, callbacks=callback_with(on_bach_end=lambda self: None)),
     TypeError, r"Odd.on_bach_end is no event. Did you mean 'on_batch_end'"),
    (fit(1, callbacks=callback_with(on_xyzzy=lambda self: None)),
     TypeError, r"Odd.on_xyzzy is no event. The events are on_train_begin"),
    (fit(1, callbacks=callback_with(on_batch_end=lambda self, last_los: None)),
     TypeError, r"reads 'last_los'.*Did you mean 'last_loss'"),
    (fit(1, callbacks=answering(True)), TypeError, r"Odd.on_batch_end returned True; a handler returns None or a dict"),
    (fit(1, callbacks=answering({"stop_trainig": True})),
     TypeError, r"cannot return 'stop_trainig'.*Did you mean 'stop_training'"),
    (fit(1, callbacks=answering({"train": False})), TypeError, r"cannot return 'train', which no callback sets"),
    (fit(1, callbacks=answering({1: 2})), TypeError, r"cannot return 1, which no callback sets"),
    (lambda: fake_learner().fit(1, callbacks=LearnerCallback(fake_learner())),
     ValueError, r"LearnerCallback is not one of this learner: make one for it"),
    (fit(1, callback_fns=type("NoSuper", (LearnerCallback,), {"__init__": lambda self, learn: None})),
     ValueError, r"NoSuper is not one of this learner.*let that call super\(\).__init__\(learn\)"),
    (fit(1, callback_fns=Data), ValueError, r"Data would replace learn.data; rename the class"),
    (fit(1, callbacks=appending_wrongly), TypeError, r"last_metrics must be a list, not 3: return"),
    (fit(1, metrics=callback_with(on_epoch_end=lambda self: None)),
     ValueError, r"gave 0 values; on_epoch_end of each must return"),

    # data
    (data(train_dl=[]), ValueError, r"training data is empty"),
    (data(train_dl=3), TypeError, r"something to iterate over, not 3"),
    (data(train_dl=iter([1])), TypeError, r"list_iterator is used up after one pass"),
    (fits_stream, TypeError, r"has no length, and a schedule needs the number of batches"),
    (lambda: fake_data(batch_size=20),
     ValueError, r"10 training samples do not fill one batch of 20.*bs=10 or less, or drop_last"),
    (lambda: fake_data(batch_size=0), ValueError, r"bs must be at least 1, not 0"),
    (lambda: fake_learner().validate(3), TypeError, r"something to iterate over, not 3"),
    (lambda: fake_learner().validate([torch.zeros(3)]),
     TypeError, r"a batch must be a pair \(inputs, targets\), not float32 \(3,\)"),
    (lambda: fake_learner(valid_length=0).validate(), ValueError, r"no validation data.*pass dl="),
    (lambda: fake_learner(valid_length=0).get_preds(), ValueError, r"no valid data"),
    (lambda: fake_learner().get_preds("test"), ValueError, r"no test data"),
    (lambda: Learner(data(valid_dl=[])(), nn.Linear(5, 4), loss_func=CLASS()).get_preds(),
     ValueError, r"not one batch to predict on"),
    (lambda: fake_learner().predict("x.png"), TypeError, r"must be a tensor, not str"),

    # what does not fit together; the shapes stand in the note
    (fit(1, loss_func=CLASS(reduction="none")),
     ValueError, r"loss of a batch must be one number, not a tensor of shape \(5,\): return its mean"),
    (lambda: fake_learner(loss_func=CLASS(reduction="none")).validate(),
     ValueError, r"one number, not a tensor of shape \(5,\)"),
    (fit(1, loss_func=CrossEntropyFlat(), layers=[nn.Linear(5, 2)]),
     ValueError, r"2 outputs, for the classes 0 to 1, but the targets go from 0 to 3"),
    (fit(1, layers=[nn.Linear(7, 4)]),
     RuntimeError, r"shapes cannot be multiplied.*input float32 \(5, 5\), output None"),
    (fit(1, layers=[nn.Linear(5, 2)]),
     IndexError, r"out of bounds.*output float32 \(5, 2\), target int64 \(5,\) from 0 to 3"),
    (fit(1, loss_func=nn.MSELoss()), (RuntimeError, UserWarning), r"output float32 \(5, 4\), target int64 \(5,\)"),
    (fit(1, loss_func=lambda output, target: None),
     TypeError, r"loss of a batch must be a tensor of one number, not None"),
    (fit(1, loss_func=lambda output, target: 1.0),
     TypeError, r"loss of a batch must be a tensor of one number, not 1.0"),
    (fit(1, metrics=lambda output, target: output), ValueError, r"metric.*shape \(5, 4\)"),

    # files
    (lambda: fake_learner().save(""), ValueError, r"a file needs a name, not ''"),
    (lambda: fake_learner().save(None), ValueError, r"a file needs a name, not None"),
    (lambda: fake_learner().load("nowhere"), FileNotFoundError, r"there is no file .*nowhere.pth; its folder holds"),

    # steppers
    (lambda: Stepper((1, 2, 3), 10), ValueError, r"vals must be \(start, end\) or one value, not \(1, 2, 3\)"),

    # plots
    (lambda: fake_learner().recorder.plot(), ValueError, r"nothing to plot"),
    (lambda: fake_learner().recorder.plot_metrics(), ValueError, r"no metrics to plot: give the learner some"),
]


def everything_said(error):
    return " ".join([str(error), *getattr(error, "__notes__", [])])


@pytest.mark.parametrize("act, kind, says", CASES, ids=[f"{i}: {case[2][:40]}" for i, case in enumerate(CASES)])
def test_bad_input_is_explained(act, kind, says):
    with pytest.raises(kind) as caught:
        act()
    assert re.search(says, everything_said(caught.value), re.DOTALL), everything_said(caught.value)


@pytest.mark.parametrize("lr", [np.float32(1e-3), np.array(1e-3), np.array([1e-3]), torch.tensor(1e-3), (1e-3,), 1])
def test_numbers_of_other_libraries_are_numbers(lr, tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.fit(1, lr)
    learn.opt.mom = np.float64(0.8)
    learn.save("x")     # a file holds plain numbers only
    assert learn.load("x").opt.mom == 0.8


def test_an_error_is_raised_before_anything_is_trained():
    learn = fake_learner(metrics=accuracy)
    before = learn.model[0].weight.detach().clone()
    for bad in (lambda: learn.fit(1, -1), lambda: learn.fit(1, callbacks=Callback), lambda: learn.lr_find(1, 0.1),
                lambda: learn.fit(1, callbacks=callback_with(on_bach_end=lambda self: None)),
                lambda: learn.fit_one_cycle(1, pct_start=2)):
        with pytest.raises((TypeError, ValueError)):
            bad()
    assert torch.equal(learn.model[0].weight, before) and not learn.recorder.names


