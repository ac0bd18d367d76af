"""A learner in one file: what comes back predicts the same, without data and code; other files are refused."""
import contextlib
import copy
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import fill, picture
from PIL import Image
from torch import nn

from minifast.fakes import fake_data, fake_learner, fake_pictures
from minifast.files import load_file, save_file
from minifast.program import Program
from minifast.tracing import trace
from minifast.vision import *

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from minifast.vision import *
learn = load_learner("pets.mf")
files = get_image_files("new")
value, index, shares = learn.predict(files[0])
preds, _ = learn.get_preds(files)
torch.save([str(value), index, shares, preds, learn.data.classes], "out.pth")
assert not [name for name in sys.modules if name.startswith("torchvision")], "the model's source was imported"
"""


class Small(nn.Sequential):
    """A model of the user's own."""

    def __init__(self, n=2):
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pets", {"cat": 6, "dog": 6}, ".jpg", mode="RGB", size=(40, 52))
    (tmp_path / "new").mkdir()
    for i, (size, suffix) in enumerate([((50, 70), "jpg"), ((30, 33), "png"), ((90, 40), "jpg")]):
        picture(50 + i, "RGB", size).save(tmp_path / f"new/{i}.{suffix}")
    return tmp_path


def pets(folder, tfms=True, **kwargs):
    return ImageDataBunch.from_folder(folder / "pets", valid_pct=0.3, seed=1, bs=4, size=32, device="cpu",
                                      ds_tfms=get_transforms() if tfms else None, **kwargs).normalize(imagenet_stats)


@pytest.mark.parametrize("tfms", [True, False])
@pytest.mark.parametrize("make", [lambda data: cnn_learner(data, models.resnet18, pretrained=False, silent=True),
                                  lambda data: Learner(data, Small(), silent=True)])
def test_a_fresh_process_without_the_models_source_predicts_the_same_bits(folder, tfms, make):
    learn = make(pets(folder, tfms))
    learn.fit(1, 1e-3)
    assert learn.export("pets.mf") == Path("pets.mf")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, index, shares, preds, classes = torch.load("out.pth", weights_only=True)
    files = get_image_files("new")
    mine = learn.predict(files[0])
    assert (value, int(index), classes) == (mine[0], int(mine[1]), ["cat", "dog"])
    assert torch.equal(shares, mine[2]) and torch.equal(preds, learn.get_preds(dl=files)[0])


def test_a_loaded_learner_does_what_needs_no_data(folder):
    learn = cnn_learner(pets(folder), models.resnet18, pretrained=False, silent=True)
    path = learn.export()
    assert path == folder / "pets/export.mf"
    loaded = load_learner(folder / "pets", test=get_image_files("new"))
    assert torch.equal(loaded.get_preds("test")[0], learn.get_preds(dl=get_image_files("new"))[0])
    plain, mean, _ = loaded.TTA(ds_type="test", beta=None)
    assert torch.equal(plain, loaded.get_preds("test")[0]) and not torch.equal(mean, plain)
    item = Image.open("new/0.jpg")
    assert torch.equal(loaded.predict(item)[2], learn.predict(item)[2])
    assert torch.equal(loaded.predict(torch.ones(3, 32, 32))[2], learn.predict(torch.ones(3, 32, 32))[2])
    with pytest.raises(ValueError, match="there is no training data: this learner is for predictions"):
        loaded.fit(1)
    with pytest.raises(ValueError, match="there is no valid data"):
        loaded.get_preds()
    with pytest.raises(ValueError, match="not in its file: set learn.loss_func"):
        loaded.validate(learn.data.valid_dl)
    assert "Program with 11," in repr(loaded) and "batches to train on: 0" in repr(loaded)
    assert not any(p.requires_grad for p in loaded.model.parameters()) and not loaded.model.training
    loaded.model.train()
    assert not loaded.model.training


def test_the_learner_is_left_unchanged(folder):
    learn = cnn_learner(pets(folder), models.resnet18, pretrained=False, silent=True)
    learn.model.train()
    learn.freeze()
    before = copy.deepcopy(learn.model.state_dict()), [p.requires_grad for p in learn.model.parameters()]
    learn.export("a.mf")
    assert all(map(torch.equal, before[0].values(), learn.model.state_dict().values()))
    assert before[1] == [p.requires_grad for p in learn.model.parameters()] and learn.model[1].training


LABELS = {
    "several": (lambda i: ["a", "b"][: i % 3], {"thresh": 0.2}, 2), "quantity": (lambda i: i + 0.5, {}, 1),
    "quantities": (lambda i: [i + 0.5, 2.0 * i + 0.25], {}, 2)}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_and_quantities(folder, kind):
    label, options, n = LABELS[kind]
    files = get_image_files("pets", recurse=True)
    data = ImageDataBunch.from_lists(".", files, [label(i) for i in range(len(files))], bs=4, size=32, device="cpu")
    learn = Learner(data, Small(n), silent=True)
    loaded = load_learner(learn.export("a.mf", **options))
    mine, theirs = (each.predict(files[0]) for each in (learn, loaded))
    assert torch.equal(mine[2], theirs[2]) and type(mine[0]) is type(theirs[0])
    assert theirs[0] == learn.predict(files[0], **options)[0] if options else str(theirs[0]) == str(mine[0])
    assert loaded.data.thresh == options.get("thresh", 0.5) and learn.data.thresh == 0.5


def test_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        picture(i, "RGB", (20, 24)).save(f"{i}.jpg")
        Image.fromarray(np.full((20, 24), i % 2, np.uint8)).save(f"{i}_mask.png")
    data = (SegmentationItemList.from_folder(".", extensions=".jpg").split_by_idx([5])
            .label_from_func(lambda file: f"{file.stem}_mask.png", classes=["road", "sky"])
            .transform(get_transforms(), size=16).databunch(bs=2, device="cpu"))
    learn = Learner(data, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), silent=True)
    loaded = load_learner(learn.export("a.mf"))
    mine, theirs = (each.predict("0.jpg") for each in (learn, loaded))
    assert mine[0].shape == (16, 16) and torch.equal(mine[0], theirs[0]) and torch.equal(mine[2], theirs[2])


class Two(nn.Module):
    """Several inputs by name, several outputs."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("shift", torch.tensor(0.25), persistent=False)

    def forward(self, a, b):
        return {"sum": self.fc(a) + self.shift, "pair": (b * 2, a.mean(1))}


def test_several_inputs_and_outputs_by_name():
    x = {"b": torch.randn(3, 4), "a": torch.randn(3, 3)}
    model = Two()
    program = Program(trace(model, x), model.state_dict())
    swapped = {"a": torch.randn(7, 3), "b": torch.randn(7, 4)}
    mine, theirs = model(**swapped), program(**swapped)
    assert torch.equal(mine["sum"], theirs["sum"]) and torch.equal(mine["pair"][0], theirs["pair"][0])
    assert type(theirs["pair"]) is tuple
    with pytest.raises(ValueError, match=r"takes float32 \(n, 4\), float32 \(n, 3\), not .* \(n, 5\)"):
        program(a=torch.randn(2, 5), b=torch.randn(2, 4))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4])), F.cross_entropy,
                                  partial(F.cross_entropy, label_smoothing=0.1), LabelSmoothingCrossEntropy(),
                                  CrossEntropyFlat()])
def test_tables_and_arrays_and_every_usual_loss(tmp_path, monkeypatch, loss):
    monkeypatch.chdir(tmp_path)
    learn = fake_learner(loss_func=loss)
    loaded = load_learner(learn.export("a.mf"))
    x = torch.randn(6, 5)
    assert torch.equal(learn.get_preds(dl=x)[0], loaded.get_preds(x)[0])
    mine, theirs = learn.predict(x[0]), loaded.predict(x[0])
    assert mine[0] == theirs[0] and torch.equal(mine[2], theirs[2])


def test_precision_and_layout_come_along(folder):
    learn = Learner(pets(folder), Small(), silent=True).to_bf16().to_channels_last()
    loaded = load_learner(learn.export("a.mf"))
    files = get_image_files("new")
    assert torch.equal(learn.get_preds(dl=files)[0], loaded.get_preds(files)[0])
    assert [type(cb).__name__ for cb in loaded.callbacks] == ["MixedPrecision", "ChannelsLast"]


# ---- what cannot be exported

class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(5, -1)


class ByValue(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Drawing(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class Typed(nn.Module):
    def forward(self, x):
        return {1, 2}


@pytest.mark.parametrize(("part", "message"), [
    (ByValue(), r"the part '1' of the model \(a ByValue\) cannot be exported"),
    (Fixed(), "cannot be exported"), (Drawing(), "differ from the model's"), (Typed(), "the model returns a set")])
def test_a_model_that_cannot_be_exported_says_which_part(tmp_path, monkeypatch, part, message):
    monkeypatch.chdir(tmp_path)
    learn = fake_learner(layers=[nn.Linear(5, 4), part])
    with pytest.raises(ValueError, match=message):
        learn.export("a.mf")
    assert not Path("a.mf").exists()


def test_without_the_program_the_model_is_given_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = fake_learner(layers=[nn.Linear(5, 4), ByValue()])
    learn.export("a.mf", program=False)
    with pytest.raises(ValueError, match="a.mf holds no program, only weights: give load_learner a model="):
        load_learner("a.mf")
    loaded = load_learner("a.mf", model=nn.Sequential(nn.Linear(5, 4), ByValue()))
    x = torch.randn(3, 5)
    assert torch.equal(loaded.get_preds(x)[0], learn.get_preds(dl=x)[0])
    with pytest.raises(RuntimeError, match="a.mf does not fit the model: .*other shapes"):
        load_learner("a.mf", model=nn.Sequential(nn.Linear(5, 3)))
    fake_learner().export("b.mf")
    with pytest.raises(ValueError, match="b.mf holds its program, and needs no model="):
        load_learner("b.mf", model=nn.Linear(5, 4))


def test_code_of_the_users_is_named(folder):
    learn = Learner(pets(folder), Small(), silent=True)
    learn.data.add_tfm(lambda batch: batch)
    with pytest.raises(ValueError, match="batches go through a function of your own"):
        learn.export("a.mf")
    data = ImageDataBunch.from_folder("pets", valid_pct=0.3, bs=4, size=32, device="cpu",
                                      ds_tfms=(None, lambda image: image))
    with pytest.raises(ValueError, match="functions for validation, which are code"):
        Learner(data, Small()).export("a.mf")

    class Own(nn.CrossEntropyLoss):
        def activation(self, output):
            return output * 3

    with pytest.raises(ValueError, match="the activation of the loss .* is code of its own"):
        fake_learner(loss_func=Own()).export("a.mf")
    with pytest.raises(ValueError, match="format must be one of 'minifast', 'onnx', not 'tflite'"):
        fake_learner().export("a.mf", format="tflite")


# ---- files that are something else

@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return fake_learner().export("a.mf")


def test_other_files_are_refused_by_name(file):
    with pytest.raises(FileNotFoundError, match="there is no file b.mf; its folder holds a.mf"):
        load_learner("b.mf")
    learn = fake_learner(path=".")
    with pytest.raises(ValueError, match="w.pth is no exported learner: it holds weights, which learn.load reads"):
        load_learner(learn.save("w"))
    learn.fit(1, checkpoint="run")
    with pytest.raises(ValueError, match="run.ckpt is no exported learner: it is the checkpoint of a run"):
        load_learner("models/run.ckpt")
    for content in (b"", b"PK", b"a text", pickle.dumps(Path("x"))):
        Path("b.mf").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.mf"):
            load_learner("b.mf")
    content = load_file(file)
    save_file({**content, "version": 2}, "b.mf")
    with pytest.raises(ValueError, match="b.mf has version 2 of exported learners, and this minifast reads version 1"):
        load_learner("b.mf")


def test_every_damage_of_its_bytes_is_found(file):
    raw = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), 40):
        for bad in (raw[:at], raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1:], raw[:at] + b"\0" + raw[at:]):
            Path("b.mf").write_bytes(bad)
            with pytest.raises(ValueError, match=r"b\.mf"):
                load_learner("b.mf")


@pytest.mark.parametrize("name", ["os.system", "aten.from_file.default", "aten.set_.source_Tensor", "torch.load",
                                  "aten.__class__.default", "aten.linear.__class__", "prim.device.default",
                                  "aten._local_scalar_dense.default", "aten.save.default", "aten.warn.default",
                                  "aten.manual_seed.default", "aten.append.t", "aten.format.default",
                                  "aten.nothing_of_the_kind.default"])
def test_only_torchs_own_operations_are_called(file, name):
    content = load_file(file)
    content["program"]["calls"][0][0] = name
    save_file(content, "b.mf")
    with pytest.raises(ValueError, match=r"b\.mf is damaged or was not written by minifast.*operation"):
        load_learner("b.mf")


def test_no_operation_with_a_file_is_one_of_a_program():
    """Over all that this torch has: what is left takes and makes tensors and plain values."""
    from minifast.program import function_of
    names = [f"aten.{s.name.removeprefix('aten::')}.{s.overload_name or 'default'}"
             for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::")]
    allowed = []
    for name in names:
        with contextlib.suppress(ValueError):
            allowed.append(function_of(name))
    schemas = [function._schema for function in allowed]
    assert 1000 < len(schemas) < len(names) and all(schema.returns for schema in schemas)
    assert not [s for s in schemas if any("file" in value.name for value in s.arguments)]
    kinds = {str(value.type) for s in schemas for value in (*s.arguments, *s.returns)}
    assert not [kind for kind in kinds if any(word in kind for word in ("Storage", "Generator", "Stream", "Future"))]


def test_other_weights_than_those_that_were_checked_are_found(file):
    content = load_file(file)
    content["weights"]["0.weight"][0, 0] += 1
    save_file(content, "b.mf")
    with pytest.raises(ValueError, match="does not compute here what it computed where it was written"):
        load_learner("b.mf")


def test_fuzzed_files_are_refused_by_name(tmp_path):
    """The short form of tests/torture/fuzzed_exports.py."""
    spec = importlib.util.spec_from_file_location("fuzzed_exports", ROOT / "tests/torture/fuzzed_exports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts, wrong = module.fuzz(25, tmp_path)
    assert wrong == [] and counts["files"] == 25 and counts["refused"] > 10


# ---- ONNX

EXTRA = ("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in EXTRA),
                                reason="the extra minifast[onnx] is missing")


@needs_onnx
@pytest.mark.filterwarnings("default")      # the exporter's own
def test_onnx(folder):
    import onnx
    import onnxruntime
    learn = cnn_learner(pets(folder), models.resnet18, pretrained=False, silent=True)
    path = learn.export("a.onnx", format="onnx")
    session = onnxruntime.InferenceSession(path)
    x = torch.randn(7, 3, 32, 32)
    learn.model.eval()
    [output] = session.run(None, {"input0": x.numpy()})
    assert torch.allclose(torch.from_numpy(output), learn.model(x), atol=1e-4)
    said = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["minifast"])
    assert said["data"]["classes"] == ["cat", "dog"] and said["data"]["size"] == [32, 32]


@pytest.mark.skipif(not needs_onnx.args[0], reason="the extra is there")
def test_without_the_extra_onnx_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match=r"pip install minifast\[onnx\]"):
        fake_learner().export("a.onnx", format="onnx")


# ---- data without pictures

def test_data_of_classes_alone_serves_to_predict(folder):
    data = pets(folder)
    learn = Learner(data, Small(), path=".", silent=True)
    learn.fit(1)
    learn.save("stage")
    bare = ImageDataBunch.single_from_classes(folder, ["cat", "dog"], get_transforms(), size=32)
    bare.normalize(imagenet_stats)
    other = Learner(bare, Small(), path=".", silent=True).load("stage")
    files = get_image_files("new")
    assert torch.equal(other.get_preds(files)[0], learn.get_preds(dl=files)[0])
    assert other.predict(files[0])[0] == learn.predict(files[0])[0]
    with pytest.raises(ValueError, match="there is no training data"):
        other.fit(1)
    with pytest.raises(ValueError, match="there are no batches: this data is for predictions on new samples only"):
        bare.show_batch()
    other.export("a.mf")
    assert torch.equal(load_learner("a.mf").get_preds(files)[0], learn.get_preds(dl=files)[0])


def test_loaded_learners_can_be_exported_again(file):
    first = load_learner(file)
    with pytest.raises(ValueError, match="data without samples does not say what the model takes"):
        first.export("b.mf")
    assert fake_data().thresh == 0.5 and fake_pictures().thresh == 0.5
