"""A user's script, checked by `mypy --strict`: what the types say of the most used calls."""
from typing import assert_type

from a_callback import GradNorm
from torch import nn

from minifast.callbacks.one_cycle import OneCycleScheduler
from minifast.data import DataBunch
from minifast.fakes import fake_data
from minifast.layer_groups import LearningRate
from minifast.learner import Learner
from minifast.losses import CrossEntropyFlat, LossFunction
from minifast.metrics import accuracy
from minifast.suggestion import RangeTest, RangeTests

data: DataBunch = fake_data()
rates: LearningRate = [1e-3]
loss: LossFunction = CrossEntropyFlat()
learn = Learner(data, nn.Linear(5, 4), metrics=[accuracy], callback_fns=[GradNorm], silent=True, loss_func=loss)
found = learn.lr_find(num_it=20)
assert_type(found, RangeTest)
assert_type(learn.lr_find(num_it=20, wds=[0.0, 1e-2]), RangeTests)
assert_type(found.suggestion.lr, float | None)
learn.fit(1, rates)
learn.fit(1, slice(1e-3), callbacks=[OneCycleScheduler(learn, 1e-2, form="fastai")])
learn.fit_one_cycle(1, 1e-2, moms=(0.95, 0.85))
print(learn.grad_norm.scale, learn.one_cycle_scheduler.pct_start)   # callbacks are attributes by their names
learn.data.train_dl
learn.save("stage-1").exists()
learn.load("stage-1").fit(1)
