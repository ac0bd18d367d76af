"""Every private name of torch can be gone: minifast then goes on by public ways, with the same numbers."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import MODULES, PACKAGE

ROOT = Path(__file__).parents[1]

# (module, attribute path) of each. All are put back after the import of minifast, because torch itself needs some.
NAMES = [
    ("torch.nn.modules.batchnorm", "_BatchNorm"),
    ("torch.nn.modules.instancenorm", "_InstanceNorm"),
    ("torch", "_foreach_add_"),
    ("torch", "_foreach_mul_"),
    ("torch", "_fused_sgd_"),
    ("torch", "_fused_adam_"),
    ("torch", "_fused_adamw_"),
    ("torch.optim.optimizer", "Optimizer.profile_hook_step"),
    ("torch.optim.optimizer", "_global_optimizer_pre_hooks"),
    ("torch.optim.optimizer", "_global_optimizer_post_hooks"),
    ("torch.nn.modules.module", "Module._compiled_call_impl"),
    ("torch.nn.modules.module", "Module._call_impl"),
]

PROGRAM = """
import functools, importlib, sys, warnings
import torch, torch.nn, torch.optim.optimizer
torch.set_num_threads(1)
warnings.simplefilter("error")

taken = []
for name in sys.argv[1:]:
    module, path = name.split(":")
    *inner, last = path.split(".")
    owner = functools.reduce(getattr, inner, importlib.import_module(module))
    taken.append((owner, last, vars(owner)[last]))
    delattr(owner, last)
from minifast.vision import *
from minifast.fakes import fake_learner
for owner, last, held in taken:
    setattr(owner, last, held)

def learner():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)]
    return fake_learner(train_length=40, layers=layers, path=".")

def numbers(learn):
    return [round(float(x), 5) for x in learn.recorder.raw_losses]

learn = learner()
learn.callbacks = [GradientAccumulation(learn, 2)]
learn.lr_find(num_it=6)
learn.fit_one_cycle(1, 0.01)
print(numbers(learn))

learn = learner()
if "call_impl" in str(sys.argv):    # imports the compiler, which takes seconds; the eager backend changes no number
    learn.compile(backend="eager")
learn.summary()
learn.fit(1, 0.01)
learn.compile(False)
learn.fit(1, 0.01)
print(numbers(learn))

class Cut(Callback):
    role = "watching"
    def on_batch_end(self, train, iteration):
        if train and iteration == 5: raise RuntimeError("cut")

learn = learner()
try:
    learn.fit(2, 0.01, callbacks=[Cut(), Checkpoint(learn, "run", every=1)])
except RuntimeError as e:
    assert "cut" in str(e)
learn = learner()
learn.silent = True
learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", every=1)])
print(numbers(learn))
"""


def run(names, folder):
    command = [sys.executable, "-c", PROGRAM, *(":".join(name) for name in names)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return run([], tmp_path_factory.mktemp("usual"))


def test_without_any_of_them_the_numbers_are_the_same(usual, tmp_path):
    assert run(NAMES, tmp_path) == usual


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[1])
def test_without_one_of_them_the_numbers_are_the_same(name, usual, tmp_path):
    assert run([name], tmp_path) == usual


def test_no_other_module_uses_a_private_name_of_torch():
    private = re.compile(r"torch\.[a-z_.]*\b_[a-z]|from torch[a-z_.]* import .*\b_[a-zA-Z]|_compiled_call_impl"
                         r"|_orig_mod|_foreach_|_BatchNorm\b|_InstanceNorm\b")
    found = {name: private.findall(path.read_text()) for name, path in MODULES.items() if name != "torch_private"}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_private_name_is_tried_out():
    text = (PACKAGE / "torch_private.py").read_text()
    last = {path.rpartition(".")[2] for _, path in NAMES}
    named = set(re.findall(r'"(_[a-zA-Z_]+|profile_hook_step)"', text))
    # read off a living object with a default, or marked on a function: their absence is the usual case
    assert named - last <= {"__wrapped__", "_orig_mod", "_iterator", "_optimizer_step_pre_hooks",
                            "_optimizer_step_post_hooks", "__dict__", "_modules", "_torchdynamo_orig_callable",
                            "_saved_total_weight", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                            "_backward_pre_hooks", "_concrete_type", "_schema"}
