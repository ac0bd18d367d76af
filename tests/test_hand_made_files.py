"""Every field of a file is checked before the learner is changed: an error names the file. The long form is
`make torture`."""
import copy
import warnings

import pytest
import torch
from torture.fuzzed_files import Cut, changed, field, learner, train

from minifast.files import load_file, save_file

BIG, GONE = 2**70, ...


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with pytest.raises(Cut):
        train(learner(folder, at=7))
    learn = learner(folder)
    learn.fit(1, 0.01)
    learn.save("w")
    return {name: load_file(folder / "models" / name) for name in ("w.pth", "run.ckpt")}


def written(files, name, way, value, folder):
    assert way == () or field(files[name], way) is not None
    return save_file(changed(copy.deepcopy(files[name]), way, lambda old: value), folder / "models" / name)


@pytest.mark.parametrize(("way", "value", "says"), [
    (("learner", "model", "training", 3), BIG, "training mode must be True or False"),
    (("learner", "model", "trainable", 0), 1, "requires_grad must be True or False"),
    (("learner", "model", "weights", "0.weight"), torch.ones(2, 2), "0.weight"),
    (("learner", "opt", "param_groups", 0, "amsgrad"), -1, "'amsgrad' .* must be True or False, not -1"),
    (("learner", "opt", "param_groups", 0, "betas"), 0.9, "'betas'"),
    (("learner", "opt", "state", 2, "exp_avg"), torch.ones(3), "exp_avg"),
    (("learner", "opt", "state", 2, "step"), True, "needs one number for step: True"),
    (("learner", "rng", "torch"), torch.ones(3), "is damaged"),
    (("loaders", "training", "position", "seed"), None, "seed must be a whole number, not None"),
    (("loaders", "training", "position", "passes"), -1, "passes must be at least 0"),
    (("loaders", "validation", "position"), GONE, "no position in the validation data"),
    (("settings", "amsgrad", 0), torch.ones(2), "'settings' holds other things than names and plain values"),
    (("parts", "model.2 (Dropout)", "p"), {},
     r"model.2 \(Dropout\): p of Dropout is a dict there, not a number"),
    (("parts", "model.1 (BatchNorm1d)", "momentum"), "", "momentum of BatchNorm1d is a str there, not a number"),
    (("parts", "callback EMA", "decay"), None, "callback EMA: decay of EMA is a NoneType there, not a number"),
    (("parts", "callback EMA", "average"), False, "callback EMA: average of EMA is a bool there, not a list"),
    (("parts", "callback EMA", "average"), [torch.ones(1)], "average is none of these weights"),
    (("parts", "callback MixUpCallback", "stack_y"), b"a", "stack_y of MixUpCallback is a bytes there, not a flag"),
    (("parts", "callback Recorder", "times"), [b"a"], "times of the record holds b'a'"),
    (("parts", "callback Recorder", "lrs"), torch.ones(2, 2), "lrs of the record must be a row of numbers"),
    (("parts", "callback Recorder", "train_losses"), [0.1, 0.2, 0.3], "columns of the record have different lengths"),
    (("parts", "loss function", "itself", "state", "loss_func"), False, "loss_func of .*Mix.* is a bool there"),
    (("parts", "callback EMA"), GONE, "'parts' does not hold what 'callback EMA' has changed"),
    (("changed", "callback Recorder", 2), [], "'parts' does not hold what 'callback Recorder' has changed"),
    (("position", "epoch"), 3, "it is in epoch 3 of 2"),
])
def test_a_checkpoint_with_a_wrong_field(files, tmp_path, way, value, says):
    path = written(files, "run.ckpt", way, value, tmp_path)
    learn = learner(tmp_path)
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(ValueError, match=says) as error:
        train(learn)
    assert str(path) in str(error.value)
    assert all(map(torch.equal, before.values(), learn.model.state_dict().values()))


def test_a_part_that_is_gone_with_its_list_of_changes(files, tmp_path):
    for way in (("parts", "callback EMA"), ("changed", "callback EMA")):
        files = {"run.ckpt": changed(files["run.ckpt"], way, lambda old: ...)}
    save_file(files["run.ckpt"], tmp_path / "models" / "run.ckpt")
    with pytest.raises(ValueError, match="run.ckpt .* does not hold the callback EMA"):
        train(learner(tmp_path))


@pytest.mark.parametrize(("way", "value", "says"), [
    (("opt", "param_groups", 0, "maximize"), (), "'maximize' .* must be True or False"),
    (("opt", "param_groups", 0, "maximize"), None, "'maximize' .* must be True or False"),
    (("opt", "param_groups", 0, "params", 2), True, "names a parameter True"),
    (("opt", "param_groups", 0, "lr"), "fast", "'lr'"), (("opt", "state", 0, "step"), False, "one number for step"),
    (("opt", "state", 0), 3, "for a parameter of shape"), (("opt",), [], "is a list, not a dict")])
def test_weights_with_a_wrong_optimizer_state(files, tmp_path, way, value, says):
    path = written(files, "w.pth", way, value, tmp_path)
    learn = learner(tmp_path)
    with pytest.warns(UserWarning, match=f"(?s){path}.*{says}"):
        learn.load("w")
    assert torch.equal(learn.model[0].weight, files["w.pth"]["model"]["0.weight"])
    learn.fit(1, 0.01)


@pytest.mark.parametrize("value", [True, "text", {"size": torch.ones(2)}, {3: [object]}])
def test_weights_with_wrong_words_about_the_data(files, tmp_path, value):
    if isinstance(value, dict) and 3 in value:
        value = {3: [1j]}
    learn = learner(tmp_path)
    try:
        path = written(files, "w.pth", ("prepares",), value, tmp_path)
    except TypeError:
        return
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(ValueError, match="field 'prepares' is .* not a dict of plain values") as error:
        learn.load("w")
    assert str(path) in str(error.value)
    assert all(map(torch.equal, before.values(), learn.model.state_dict().values()))


def test_an_error_in_a_run_that_went_on_names_its_file(files, tmp_path):
    path = written(files, "run.ckpt", (), files["run.ckpt"], tmp_path)
    learn = learner(tmp_path, at=8)
    with warnings.catch_warnings(), pytest.raises(Cut) as error:
        train(learn)
    assert f"the run had been continued from {path} in epoch 1 at batch 1" in error.value.__notes__
    learn = learner(tmp_path / "new", at=3)
    with pytest.raises(Cut) as error:
        train(learn)
    assert not any("continued from" in note for note in error.value.__notes__)
