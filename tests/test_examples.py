"""The examples in short form: what they print is checked against scikit-learn, torch, or a loop that is written out."""
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score, r2_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from minifast.callbacks import Checkpoint
from minifast.runs import Run

FOLDER = Path(__file__).parent.parent / "examples"
NEEDS = {"transformer_text": "transformers", "optuna_search": "optuna", "mlflow_runs": "mlflow"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # other packages' own


def example(name):
    """The example as a module."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60 and text.startswith('"""') and 'if __name__ == "__main__":\n    main(' in text
    assert f"test_{path.stem}(" in Path(__file__).read_text(), "every example has a test"
    assert f"{path.stem}.py" in (FOLDER.parent / "docs/jobs.md").read_text(), "every example stands in docs/jobs.md"


def test_the_counts_of_lines_are_those_of_the_docs():
    spec = importlib.util.spec_from_file_location("lines", FOLDER.parent / "tests/bench/jobs/lines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    docs = (FOLDER.parent / "docs/jobs.md").read_text()
    table = {job: numbers for job, *numbers in module.table()}
    assert set(table) == {path.stem for path in FOLDER.glob("*.py")}
    for job, numbers in table.items():
        assert f"| {job} | {' | '.join('-' if n is None else str(n) for n in numbers)} |" in docs
        assert 5 < numbers[0] <= max(n for n in numbers[1:] if n is not None)
    longer = {job for job, (ours, *theirs) in table.items() if ours > min(n for n in theirs if n is not None)}
    assert longer == {"language_model", "with_torchmetrics"}, "docs/jobs.md says which"


def test_the_programs_of_other_libraries_that_are_counted_can_be_read():
    programs = [path for library in ("fastai_2", "lightning_2")
                for path in (FOLDER.parent / "tests/bench/jobs" / library).glob("[a-z]*.py") if path.stem != "shared"]
    for path in programs:
        assert (FOLDER / path.name).exists() and "\ndef main(" in path.read_text(), path
    assert len(programs) > 40


def test_transfer_learning():
    learn, (transferred, scratch) = example("transfer_learning").main()
    x, y = learn.data.train_dl.dl.x.flatten(1), learn.data.train_dl.dl.y
    new_x, new_y = learn.data.valid_dl.dl.x.flatten(1), learn.data.valid_dl.dl.y
    plain = LogisticRegression(max_iter=1000).fit(x, y).score(new_x, new_y)
    assert len(x) == 20 and transferred > scratch and transferred > plain
    assert len(learn.opt.values("lr")) == 2 and learn.opt.values("lr")[0] < learn.opt.values("lr")[1]


def test_export_and_serve(tmp_path):
    module = example("export_and_serve")
    learn, file = module.train(tmp_path / "digits.mf", epochs=3)
    digits = load_digits()
    rows = learn.data.valid_ds.indices[:5]
    with module.server(module.predictor(file)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        request = urllib.request.Request(f"http://127.0.0.1:{httpd.server_port}",
                                         json.dumps(digits.data[rows].tolist()).encode())
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        httpd.shutdown()
        thread.join()
    preds, _ = learn.get_preds()
    for (name, probability), own in zip(answer, preds, strict=False):
        assert name == str(int(own.argmax())) and probability == pytest.approx(float(own.max()), rel=1e-5)
    assert len(answer) == 5


def test_multi_label():
    learn = example("multi_label").main(n=1000, epochs=4)
    preds, targets = learn.get_preds()
    assert f1_score(targets, preds > 0.5, average="micro") == pytest.approx(learn.validate()[2], abs=1e-6)
    assert f1_score(targets, preds > 0.5, average="micro") > 0.9
    names, labels, probabilities = learn.predict(learn.data.valid_ds[0][0])
    assert names == [n for n, p in zip(learn.data.classes, probabilities, strict=True) if p > 0.5]


def test_segmentation():
    module = example("segmentation")
    learn = module.main(n=160, epochs=3)
    preds, masks = learn.get_preds()
    found, there = preds.argmax(1).numpy(), masks.numpy()
    _, whole, in_shapes = learn.validate()
    assert whole == pytest.approx((found == there).mean(), rel=1e-5)
    assert in_shapes == pytest.approx((found == there)[there > 0].mean(), rel=1e-5)
    pixels = module.pictures(40, seed=1)[0][:, 0]
    assert whole > ((pixels > 0.5) == (there > 0)).mean()   # a threshold does not even have to tell the shapes apart


def test_tabular_classification():
    learn, df = example("tabular_classification").main(epochs=4)
    x = df.drop(columns="buys").assign(city=df["city"].fillna("?"), income=np.log(df["income"].fillna(22000)))
    x = np.hstack([StandardScaler().fit_transform(x[["age", "income"]]),
                   OneHotEncoder(sparse_output=False).fit_transform(x[["city", "member"]])])
    plain = LogisticRegression().fit(x[:2400], df["buys"][:2400]).score(x[2400:], df["buys"][2400:])
    assert learn.validate()[1] > plain + 0.1    # it has no products of columns


def test_k_fold():
    scores = example("k_fold").main(folds=5, epochs=5)
    x, y = load_breast_cancer(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    sklearns = cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), x, y, cv=folds)
    assert len(scores) == 5 and np.mean(scores) == pytest.approx(sklearns.mean(), abs=0.015)


def test_weighted_sampling():
    module = example("weighted_sampling")
    found = module.main(n=4000)
    (x, y), (new_x, new_y) = module.points(4000, seed=0), module.points(4000, seed=1)
    for name, weights in (("as they come", None), ("balanced", "balanced")):
        plain = LogisticRegression(class_weight=weights).fit(x, y).predict(new_x)
        assert found[name]["recall"] == pytest.approx(recall_score(new_y, plain), abs=0.1)
    assert found["balanced"]["recall"] > found["as they come"]["recall"] + 0.2


def test_with_torchmetrics():
    learn = example("with_torchmetrics").main(epochs=2)
    preds, targets = learn.get_preds()
    row = dict(zip(learn.recorder.names[2:-1], learn.validate(), strict=True))
    assert row["multiclass_f1_score"] == pytest.approx(f1_score(targets, preds.argmax(1), average="macro"), abs=1e-5)
    assert row["auroc"] == pytest.approx(roc_auc_score(targets, preds, multi_class="ovr"), abs=1e-4)
    assert row["micro_f1"] == pytest.approx(row["accuracy"])


def test_gan(tmp_path):
    """Beside a loop with two optimizers of torch; then cut off and continued."""
    module = example("gan")
    learn = module.make(n=1280)
    module.torch.manual_seed(1)
    rates = []

    class Rates(module.Callback):
        role = "watching"

        def on_step_end(self):
            rates.append(learn.opt.values("lr"))
    learn.fit_one_cycle(2, [5e-3, 1e-2], moms=None, callbacks=Rates())

    other = module.make(n=1280)
    torch.manual_seed(1)
    gan, batches = other.model, other.data.train_dl
    networks = gan.generator, gan.critic
    opts = [torch.optim.Adam(part.parameters(), betas=(0.5, 0.99)) for part in networks]
    step = 0
    for _ in range(2):
        for real, _ in batches:
            turn = 1 - step % 2     # the critic begins
            fake = gan.generator(torch.randn(len(real), 4))
            if turn:
                loss = F.softplus(-gan.critic(real)).mean() + F.softplus(gan.critic(fake.detach())).mean()
            else:
                loss = F.softplus(-gan.critic(fake)).mean()
            networks[turn].zero_grad()
            loss.backward()
            opts[turn].param_groups[0]["lr"] = rates[step][turn]
            opts[turn].step()
            step += 1
        with torch.no_grad():
            for real, _ in other.data.valid_dl:
                torch.randn(len(real), 4)   # what a validation draws
    for a, b in zip(learn.model.parameters(), gan.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    both = np.array(rates)
    np.testing.assert_allclose(both[:, 1], learn.recorder.lrs)
    assert both[:, 0].max() == pytest.approx(5e-3, rel=0.01) and len({*both[:, 0]}) > 20

    class Cut(module.Callback):
        role = "watching"
        at = None

        def on_batch_begin(self, train, iteration):
            if train and iteration == Cut.at:
                raise RuntimeError("cut")

    def run(name, cut_at=None):
        Cut.at = cut_at
        learn = module.make(n=1280, path=tmp_path)
        learn.fit_one_cycle(2, [5e-3, 1e-2], moms=None, callbacks=[Checkpoint(learn, name, every=1), Cut()])
        return learn
    with pytest.raises(RuntimeError, match="cut"):
        run("cut", cut_at=27)
    again, whole = run("cut"), run("whole")
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))
    assert again.recorder.raw_losses.tolist() == whole.recorder.raw_losses.tolist()


def test_vae():
    learn = example("vae").main(epochs=6)
    outputs, x = learn.get_preds()
    logits, mean, log_var = outputs
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (log_var / 2).exp()), normal(0.0, 1.0)).sum(1).mean()
    pixels = -torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x).sum(1).mean()
    assert learn.recorder.metrics[-1] == pytest.approx([float(pixels), float(kl)], rel=1e-4)
    mean_picture = x.mean(0).expand_as(x)
    assert learn.validate()[0] < F.binary_cross_entropy(mean_picture, x, reduction="sum") / len(x) - 2


def test_siamese():
    learn = example("siamese").main(n=2000, epochs=3)
    distances, same = learn.get_preds()
    a, b = learn.data.valid_dl.dl.x
    pixels = (a - b).flatten(1).norm(dim=1)
    assert learn.validate()[1] == pytest.approx(float(((distances < 1) == same.bool()).float().mean()))
    assert roc_auc_score(same, -distances) > roc_auc_score(same, -pixels) + 0.05


def test_distillation():
    teacher, alone, taught = example("distillation").main(epochs=8)
    assert taught > alone + 0.05 and taught > teacher - 0.05


def test_simclr():
    before, after = example("simclr").main(epochs=8)
    x, y = load_digits(return_X_y=True)
    plain = LogisticRegression(max_iter=1000).fit(x[:50] / 16, y[:50]).score(x[1000:] / 16, y[1000:])
    assert after > before + 0.05 and after > plain - 0.05


def test_forecasting():
    module = example("forecasting")
    learn = module.main(epochs=5)
    values = module.series()
    (x, y), (past, ahead) = module.windows(values[:4500]), module.windows(values[4500:])
    linear = np.sqrt(((LinearRegression().fit(x, y).predict(past) - ahead) ** 2).mean())
    assert learn.validate()[1] < 1.1 * linear
    assert learn.validate()[1] == pytest.approx(learn.validate()[0] ** 0.5, rel=1e-4)


def test_optuna_search():
    study = example("optuna_search").main(n_trials=6, epochs=3)
    states = [trial.state.name for trial in study.trials]
    assert set(states) <= {"COMPLETE", "PRUNED"} and len(states) == 6
    best = study.best_trial
    assert best.value == max(best.intermediate_values.values()) or best.value == best.intermediate_values[2]
    assert best.value == max(t.value for t in study.trials if t.state.name == "COMPLETE")


def test_mlflow_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    good, bad = example("mlflow_runs").main((tmp_path / "store").as_uri(), lrs=(1e-4, 1e-2), epochs=2)
    assert float(good.data.params["callbacks.OneCycleScheduler.lr_max"]) == 1e-2
    assert good.data.metrics["accuracy"] > bad.data.metrics["accuracy"] and good.info.status == "FINISHED"


def test_vit():
    learn = example("vit").main(n=1200, depth=1, epochs=8)
    lrs = learn.opt.values("lr")
    assert len(lrs) == 3 and [b / a for a, b in zip(lrs, lrs[1:], strict=False)] == pytest.approx([4 / 3] * 2)
    first = {id(p) for p in learn.opt.params()[0]}
    assert {id(learn.model.cls), id(learn.model.place)} <= first
    decayed = {id(p) for g in learn.opt.opt.param_groups if g["decays"] for p in g["params"]}
    assert {name for name, p in learn.model.named_parameters() if id(p) not in decayed} == {
        name for name, _ in learn.model.named_parameters() if "bias" in name or "norm" in name}
    assert max(learn.recorder.lrs) == pytest.approx(3e-3) and learn.recorder.lrs[-1] < 1e-4
    preds, targets = learn.get_preds()
    assert learn.validate()[1] == pytest.approx(float((preds.argmax(1) == targets).float().mean()))
    assert learn.validate()[1] > 0.5


def test_stream(tmp_path):
    module = example("stream")
    learn, error = module.main(n_rows=40_000, epochs=5, n_batches=120)
    module.write(tmp_path / "table.npy", 40_000)
    table = np.load(tmp_path / "table.npy")
    least_squares = LinearRegression().fit(table[4000:, :-1], table[4000:, -1])
    np.testing.assert_allclose(learn.model.weight.detach()[0], least_squares.coef_, atol=0.01)
    assert error < 0.01 and learn.recorder.nb_batches == [120] * 5
    assert learn.recorder.val_losses[-1] == pytest.approx(0.01, rel=0.1)    # the noise's variance


def test_language_model():
    learn, (_, valid) = example("language_model").main(n_words=12000, epochs=3)
    x, y = (torch.cat(parts, 1) for parts in zip(*learn.data.valid_dl, strict=True))
    learn.model.reset()
    with torch.no_grad():
        whole = F.cross_entropy(learn.model.eval()(x).transpose(1, 2), y)
        learn.model.reset()
        apart = 0.0
        for part, after in learn.data.valid_dl:     # forgetting after each batch
            apart += float(F.cross_entropy(learn.model(part).transpose(1, 2), after, reduction="sum"))
            learn.model.reset()
    loss, _, perplexity = learn.validate()
    assert loss == pytest.approx(float(whole), rel=1e-4) and perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert loss < apart / y.numel() - 0.005
    entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)    # of the next word
    words = 1200 / len(valid)        # in a character
    assert entropy * words * 0.9 < loss < entropy * words * 1.35


def test_transformer_text():
    module = example("transformer_text")
    learn = module.main(epochs=5)
    bags = [[sum(word == v for word in text) for v in module.VOCABULARY] for text in module.sentences(1500, seed=2)[0]]
    labels = module.sentences(1500, seed=2)[1]
    of_words = LogisticRegression().fit(bags[:1000], labels[:1000]).score(bags[1000:], labels[1000:])
    preds, targets = learn.get_preds()
    assert learn.validate()[1] == pytest.approx(float((preds["logits"].argmax(1) == targets).float().mean()))
    assert learn.validate()[1] > 0.9 > of_words + 0.2
    assert learn.validate()[0] == pytest.approx(float(F.cross_entropy(preds["logits"], targets)), rel=1e-4)


def test_detection():
    learn = example("detection").main(n=120, epochs=6)
    boxes, (targets,) = learn.get_preds()
    overlaps = []
    for found, target in zip(boxes, targets, strict=True):
        if not len(found["boxes"]):
            overlaps.append(0.0)
            continue
        (a, b, c, d), (e, f, g, h) = found["boxes"][0].tolist(), target["boxes"][0].tolist()
        common = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
        overlaps.append(common / ((c - a) * (d - b) + (g - e) * (h - f) - common))
    assert learn.validate()[1] == pytest.approx(np.mean(overlaps), abs=1e-4) and np.mean(overlaps) > 0.5
    classification, regression = learn.recorder.metrics[-1][1:]
    assert learn.recorder.train_losses[-1] == pytest.approx(classification + regression, rel=1e-4)


def test_housing():
    module = example("housing")
    learn, of_trees = module.main(epochs=8, silent=True)
    preds, targets = learn.get_preds()
    df = module.table()
    np.testing.assert_allclose(targets, df["y"][3000:], rtol=1e-5)
    r2 = r2_score(targets, preds)
    assert learn.validate()[2] == pytest.approx(r2, abs=1e-4)
    line = LinearRegression().fit(df.iloc[:3000, :10], df["y"][:3000]).score(df.iloc[3000:, :10], df["y"][3000:])
    assert r2 > line + 0.1 and r2 > of_trees - 0.05


def test_resume(tmp_path):
    module = example("resume")
    changed = module.main()
    assert len(changed.recorder.lrs) == 4 * 16 and changed.opt.wd == 0.1
    with pytest.raises(OSError, match="the disk is gone"):
        module.train(tmp_path / "cut", crash_at=37)
    again, whole = module.train(tmp_path / "cut"), module.train(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))
    assert not torch.equal(changed.model[0].weight, whole.model[0].weight)


def test_two_processes(tmp_path):
    # in a process of its own, because `launch` copies the process
    code = "import json, two_processes; print(json.dumps(two_processes.main(epochs=2)))"
    root = FOLDER.parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
                         env={**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"})
    (one, *figures), (two, *theirs) = json.loads(out.stdout.splitlines()[-1])
    assert (one, two) == (1, 2) and len(figures[0]) == 2
    assert theirs[0] == pytest.approx(figures[0], rel=1e-4) and theirs[1:] == pytest.approx(figures[1:], rel=1e-3)
    assert figures[0][1] < figures[0][0] - 0.5


def test_compare_runs():
    runs, figure = example("compare_runs").main()
    drawn = {axis.get_ylabel(): axis for axis in figure.axes}["accuracy"]
    for line, run in zip(drawn.lines[:2], list(runs.values())[:2], strict=True):
        np.testing.assert_allclose(line.get_ydata(), [m[0] for m in run.recorder.metrics])
    both = Run.of(runs["frozen, then not"])
    assert len(both.columns["accuracy"]) == 6 and len(both.stages) == 1 and Path("runs.png").stat().st_size > 10_000
