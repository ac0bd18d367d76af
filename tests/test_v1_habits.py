"""Scripts in the style of fastai v1 run unchanged."""
import re
from functools import partial

import pytest

from minifast.basics import *
from minifast.callbacks import *
from minifast.fakes import fake_data, fake_learner

# ---- the names that a v1 script expects from a star import

@pytest.mark.parametrize("module", ["minifast", "minifast.basics", "minifast.vision"])
def test_star_imports_give_what_a_script_uses(module):
    names = {}
    exec(f"from {module} import *", names)
    expected = """torch nn F np partial Path Any Learner DataBunch DatasetType Callback LearnerCallback
        OneCycleScheduler LRFinder Recorder OptimWrapper accuracy error_rate AverageMetric simple_cnn conv_layer Flatten
        AdaptiveConcatPool2d
        CrossEntropyFlat MSELossFlat flatten_model URLs untar_data fit_one_cycle lr_find annealing_cos annealing_exp
        annealing_linear annealing_poly annealing_no optim tensor"""
    assert set(expected.split()) - set(names) == set()
    if module.endswith("vision"):
        assert "ImageDataBunch" in names


# ---- callbacks

class PrintsAndCounts(Callback):
    "Takes everything, calls super, answers a dict now and then."

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, **kwargs: Any) -> None:
        super().on_train_begin(**kwargs)
        self.seen.append(("begin", kwargs["n_epochs"], kwargs["metrics_names"]))

    def on_epoch_begin(self, epoch, **kwargs: Any) -> None:
        super().on_epoch_begin(epoch=epoch, **kwargs)

    def on_batch_begin(self, last_input, last_target, train, **kwargs):
        super().on_batch_begin(last_input=last_input, last_target=last_target, train=train, **kwargs)
        return {"last_input": last_input, "last_target": last_target}

    def on_loss_begin(self, last_output, **kwargs):
        return {"last_output": last_output}

    def on_backward_begin(self, last_loss, smooth_loss, **kwargs):
        self.smooth = float(smooth_loss)
        return {"last_loss": last_loss * 1.0}

    def on_backward_end(self, **kwargs): return {"skip_step": False}

    def on_step_end(self, **kwargs): return {"skip_zero": False}

    def on_batch_end(self, iteration, num_batch, last_loss, train, **kwargs):
        super().on_batch_end(iteration=iteration, num_batch=num_batch, last_loss=last_loss, train=train, **kwargs)
        if train:
            self.seen.append((kwargs["epoch"], num_batch, iteration))

    def on_epoch_end(self, epoch, smooth_loss, last_metrics, **kwargs: Any):
        super().on_epoch_end(epoch=epoch, smooth_loss=smooth_loss, last_metrics=last_metrics, **kwargs)
        self.seen.append(("end", epoch, len(last_metrics)))

    def on_train_end(self, exception, **kwargs: Any) -> None:
        self.seen.append(("over", exception))


def test_a_callback_with_kwargs_everywhere():
    cb = PrintsAndCounts()
    plain = fake_learner(metrics=[accuracy])
    learn = fake_learner(metrics=[accuracy])
    learn.fit(2, 1e-2, callbacks=[cb])
    plain.fit(2, 1e-2)
    assert cb.seen == [("begin", 2, ["accuracy"]), (0, 0, 0), (0, 1, 1), ("end", 0, 2), (1, 0, 2), (1, 1, 3),
                       ("end", 1, 2), ("over", None)]
    assert cb.smooth == learn.recorder.losses[-1] == plain.recorder.losses[-1]


class StopAfterNBatches(Callback):
    "Stop training after `n_batches` of training."

    def __init__(self, n_batches: int = 2):
        self.stop, self.n_batches = False, n_batches - 1

    def on_batch_end(self, iteration, **kwargs):
        if iteration == self.n_batches:
            return {"stop_epoch": True, "stop_training": True, "skip_validate": True}


def test_stop_after_n_batches():
    learn = fake_learner(train_length=50)
    learn.fit(5, callbacks=StopAfterNBatches(3))
    assert len(learn.recorder.losses) == 3 and learn.recorder.val_losses == [None]


class GradientNorm(LearnerCallback):
    "A LearnerCallback with arguments, passed as a partial."

    def __init__(self, learn: Learner, power: float = 2.0):
        super().__init__(learn)
        self.power, self.norms = power, []

    def on_backward_end(self, **kwargs):
        self.norms.append(sum(p.grad.norm(self.power).item() for p in self.learn.model.parameters()))


def test_a_learner_callback_as_partial_in_callback_fns():
    learn = fake_learner(callback_fns=[partial(GradientNorm, power=1.0)])
    learn.fit_one_cycle(2, max_lr=slice(1e-3, 1e-2))
    assert len(learn.gradient_norm.norms) == 4 and learn.gradient_norm.power == 1.0
    learn.callback_fns.append(GradientNorm)
    learn.fit(1)
    assert learn.gradient_norm.power == 2.0


class LossColumns(LearnerCallback):
    "Adds columns to the table, as v1's LossMetrics does."
    _order = -20

    def __init__(self, learn):
        super().__init__(learn)
        self.names = ["largest", "smallest"]

    def on_train_begin(self, **kwargs):
        self.learn.recorder.add_metric_names(self.names)

    def on_epoch_begin(self, **kwargs):
        self.losses = []

    def on_batch_end(self, last_target, train, last_loss, **kwargs):
        if not train:
            self.losses += [last_loss.item()] * last_target.size(0)

    def on_epoch_end(self, last_metrics, **kwargs):
        return {"last_metrics": last_metrics + [torch.tensor(max(self.losses)), torch.tensor(min(self.losses))]}


def test_columns_added_from_order_minus_20(capsys):
    learn = fake_learner(valid_length=20, metrics=[accuracy], callback_fns=[LossColumns], silent=False)
    learn.fit(1)
    header, row = capsys.readouterr().out.splitlines()
    assert re.split(r"\s+", header) == ["epoch", "train_loss", "valid_loss", "accuracy", "largest", "smallest", "time"]
    losses = learn.loss_columns.losses
    assert re.split(r"\s+", row)[4:6] == [f"{max(losses):.6f}", f"{min(losses):.6f}"]


class MixesTargets(LearnerCallback):
    "Changes batches while training, swaps the loss function for the length of a fit."

    def on_train_begin(self, **kwargs):
        self.old, learn = self.learn.loss_func, self.learn
        learn.loss_func = lambda output, y1, y2: 0.5 * (self.old(output, y1) + self.old(output, y2)) \
            if learn.model.training else self.old(output, y1)

    def on_batch_begin(self, last_input, last_target, train, **kwargs):
        return {"last_target": [last_target, last_target.flip(0) if train else last_target]}

    def on_train_end(self, **kwargs):
        self.learn.loss_func = self.old


def test_a_callback_that_swaps_the_loss_function():
    learn = fake_learner(callback_fns=MixesTargets)
    before = learn.loss_func
    learn.fit(2)
    assert learn.loss_func is before and all(np.isfinite(learn.recorder.val_losses))


class Precision(Callback):
    "A metric as a callback."

    def on_epoch_begin(self, **kwargs):
        self.right, self.n = 0, 0

    def on_batch_end(self, last_output, last_target, **kwargs):
        self.right += int((last_output.argmax(1) == last_target).sum())
        self.n += len(last_target)

    def on_epoch_end(self, last_metrics, **kwargs):
        return {"last_metrics": last_metrics + [self.right / self.n]}


def test_metrics_as_functions_partials_and_callbacks():
    def my_metric(input, target, factor=1):
        return (input.argmax(1) == target).float().mean() * factor

    learn = fake_learner(valid_length=17, metrics=[accuracy, error_rate, partial(top_k_accuracy, k=2), my_metric,
                                                   partial(my_metric, factor=2), Precision()])
    learn.fit(1)
    names = ["accuracy", "error_rate", "top_k_accuracy", "my_metric_1", "my_metric_2", "precision"]
    assert learn.recorder.names[3:-1] == names
    acc, err, top, mine, twice, precision = learn.recorder.metrics[-1]
    assert (err, mine, twice, precision) == pytest.approx((1 - acc, acc, 2 * acc, acc)) and acc <= top


def test_one_metric_needs_no_list():
    learn = fake_learner(metrics=accuracy)
    learn.metrics = error_rate      # and may be changed later
    learn.fit(1)
    assert learn.recorder.names[3] == "error_rate" and len(learn.validate()) == 2


# ---- a session

def test_the_documented_session(capsys):
    learn = Learner(fake_data(train_length=100, valid_length=50, batch_size=10), nn.Linear(5, 4), metrics=[accuracy])
    learn.lr_find()
    learn.recorder.plot(return_fig=True)
    learn.fit_one_cycle(2, 5e-2)
    learn.recorder.plot_lr(show_moms=True, return_fig=True)
    learn.recorder.plot_losses(return_fig=True)
    learn.recorder.plot_metrics(return_fig=True)
    assert learn.recorder.losses[-1] < learn.recorder.losses[0]
    assert learn.recorder.val_losses[-1] == pytest.approx(learn.validate()[0])
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 ")
    import matplotlib.pyplot as plt
    plt.close("all")


def test_free_functions_take_the_learner():
    learn = fake_learner()
    lr_find(learn, num_it=5)
    fit_one_cycle(learn, 1, max_lr=1e-2)
    assert len(learn.recorder.lrs) == 2


def test_freeze_unfreeze_and_slices():
    learn = fake_learner(layer_group_count=3, train_length=20)
    learn.freeze()
    learn.fit_one_cycle(1, 1e-2)
    learn.unfreeze()
    learn.fit_one_cycle(1, slice(1e-5, 1e-3), wd=0.1, pct_start=0.5)
    assert learn.opt.values("lr") == pytest.approx([1e-5, 1e-4, 1e-3]) and learn.opt.wd == 0.1
    learn.freeze_to(-2)
    learn.fit(1, slice(1e-3))
    assert learn.opt.values("lr") == [1e-4, 1e-4, 1e-3]


def test_save_and_load_chain(tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.save("stage-1")
    learn.fit(1, 1.0)
    changed = learn.model[0].weight.detach().clone()
    assert not torch.equal(learn.load("stage-1").model[0].weight, changed)
    assert (tmp_path / "models" / "stage-1.pth").exists()


def test_predictions():
    learn = fake_learner()
    preds, y = learn.get_preds(ds_type=DatasetType.Valid)
    preds2, y2, losses = learn.get_preds(with_loss=True)
    assert preds.shape == (5, 4) and torch.equal(preds, preds2) and losses.shape == y2.shape == (5,)
    assert preds.sum(1).tolist() == pytest.approx([1] * 5)


def test_the_optimizer_wrapper():
    learn = fake_learner(layer_group_count=2, opt_func=partial(optim.SGD, momentum=0.9), wd=1e-3)
    learn.fit(1, 1e-3)
    learn.opt.lr, learn.opt.mom, learn.opt.wd = [1e-4, 1e-3], 0.8, 1e-2
    assert (learn.opt.lr, learn.opt.mom, learn.opt.wd) == (1e-3, 0.8, 1e-2)
    assert isinstance(learn.opt, OptimWrapper) and isinstance(learn.opt.opt, optim.SGD)


# ---- schedules

class CyclesMomentum(LearnerCallback):
    "Sets hyper-parameters itself at the end of a batch, for the next one."

    def on_train_begin(self, n_epochs, **kwargs):
        n = len(self.learn.data.train_dl) * n_epochs
        self.lrs = Stepper((1e-4, 1e-2), n, annealing_cos)
        self.learn.opt.lr = 1e-4

    def on_batch_end(self, train, **kwargs):
        if train:
            self.learn.opt.lr = self.lrs.step()


def test_a_schedule_written_by_hand():
    learn = fake_learner(train_length=20, callback_fns=CyclesMomentum)
    learn.fit(2)
    assert list(learn.recorder.lrs) == [annealing_cos(1e-4, 1e-2, i / 8) if i else 1e-4 for i in range(8)]


def test_general_scheduler_with_training_phases():
    learn = fake_learner(train_length=20)
    n = len(learn.data.train_dl)
    up = TrainingPhase(n).schedule_hp("lr", (1e-3, 1e-2), anneal=annealing_linear)
    down = TrainingPhase(n).schedule_hp("lr", (1e-2, 1e-3), anneal=annealing_cos)
    phases = [up.schedule_hp("mom", (0.95, 0.85)), down.schedule_hp("mom", (0.85, 0.95))]
    learn.fit(2, callbacks=[GeneralScheduler(learn, phases)])
    assert learn.recorder.lrs[0] == 1e-3 and learn.recorder.lrs[n] == 1e-2
    assert learn.recorder.moms[0] == 0.95 and learn.recorder.moms[n] == 0.85


# ---- small helpers and arguments

def test_more_names_of_a_star_import():
    names = {}
    exec("from minifast.vision import *", names)
    expected = """os re gc gzip pickle random math json shutil Collection Tuple Dataset DataLoader TensorDataset
        itemgetter array PIL Config listify ls is_listy is_tuple ifnone noop range_of chunks arrays_split
        partition index_row one_hot to_int to_np children requires_grad apply_init in_channels trainable_params
        set_bn_eval cnn_learner create_cnn create_cnn_model create_body create_head unet_learner load_learner models"""
    assert set(expected.split()) - set(names) == set()
    assert names["PIL"].Image.new("RGB", (2, 3)).size == (2, 3) and "resnet34" in dir(names["models"])


def test_tensor_takes_several_values():
    assert tensor(1, 2, 3).tolist() == [1, 2, 3] and tensor([0.5]).dtype is torch.float32
    assert tensor([1.0, 2], [3, 4]).shape == (2, 2) and tensor(np.zeros(2)).dtype is torch.float64
    assert tensor(torch.ones(2), torch.zeros(2)).tolist() == [[1, 1], [0, 0]]
    x = torch.ones(2, requires_grad=True)
    assert not tensor(x).requires_grad and tensor(x) is not x and tensor(x, requires_grad=True).requires_grad
    assert tensor(3, dtype=torch.float64).dtype is torch.float64


def test_listify_to_a_length():
    assert listify(1, [1, 2]) == [1, 1] and listify([1, 2], 2) == [1, 2] and listify(range(2)) == [0, 1]
    assert listify(None, None) == [] and listify("ab", 2) == ["ab", "ab"] and listify(torch.tensor(3)) == [3]
    with pytest.raises(ValueError, match="a list of 3 items is given, and 2 are needed"):
        listify([1, 2, 3], 2)


def test_folders_list_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFAST_HOME", str(tmp_path))
    for name in ("b", "a.txt", ".hidden"):
        (tmp_path / name).touch()
    assert [p.name for p in ls(tmp_path)] == ["a.txt", "b"] and [p.name for p in ls(tmp_path, "*.txt")] == ["a.txt"]
    assert Config.data_path() == tmp_path / "data" and Config.get_path("model_path") == tmp_path / "models"
    with pytest.raises(ValueError, match="there is no path 'archive'"):
        Config.get_path("archive")
    learn = fake_learner(path=tmp_path)
    assert [p.name for p in learn.path.ls()] == ["a.txt", "b"] and (learn.path / "x").parent.ls() == learn.path.ls()
    assert learn.path == tmp_path and hash(learn.path) == hash(tmp_path) and isinstance(learn.path, Path)
    assert pickle.loads(pickle.dumps(learn.path)) == tmp_path


def test_a_weight_decay_for_each_layer_group():
    learn = fake_learner(layer_group_count=2, wd=(0.5, 0.1))
    learn.fit(1)
    assert learn.opt.values("wd") == [0.5, 0.1]
    learn.fit_one_cycle(1, wd=[0.3, 0.2])
    assert learn.opt.values("wd") == [0.3, 0.2]
    learn.anneal_now(1)
    assert learn.opt.values("wd") == [0.3, 0.2]
    with pytest.raises(ValueError, match=r"wd=\[0.1, 0.2, 0.3\] has 3 values for 2 layer groups"):
        learn.fit(1, wd=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="a value of wd must be a finite number"):
        fake_learner(wd=(0.1, -1))


def test_arguments_of_to_fp16():
    learn = fake_learner().to_fp16(loss_scale=512.0, clip=0.5)
    found = {type(cb).__name__: cb for cb in learn.callbacks}
    assert found["MixedPrecision"].init_scale == 512 and found["GradientClipping"].clip == 0.5
    with pytest.raises(ValueError, match="dynamic=False: the scale of the loss always adapts itself"):
        fake_learner().to_fp16(dynamic=False)


def test_patience_of_0_is_patience_of_1():
    from minifast.fakes import simulate
    for patience in (0, 1):
        stop = partial(EarlyStoppingCallback, patience=patience)
        assert simulate(stop, 9, valid_losses=[3, 2, 2]).state.epoch == 3
        reduce = partial(ReduceLROnPlateauCallback, patience=patience, factor=0.5)
        assert simulate(reduce, 3, valid_losses=[1, 1, 1]).learn.opt.lr == pytest.approx(3e-3 / 4)


def test_databunch_takes_v1s_order():
    train, valid, fix, test = ([(torch.zeros(2, 3), torch.zeros(2))] for _ in range(4))
    data = DataBunch(train, valid, fix, test, torch.device("cpu"), [lambda batch: batch])
    assert [dl.dl for dl in (data.train_dl, data.valid_dl, data.fix_dl, data.test_dl)] == [train, valid, fix, test]
    assert len(data.train_dl.tfms) == 1


def test_a_metric_that_adds_itself():
    class Two(LearnerCallback):
        _order = -20

        def on_train_begin(self, **kwargs):
            self.learn.recorder.add_metric_names(["two"])

        def on_epoch_end(self, last_metrics, **kwargs):
            return add_metrics(last_metrics, torch.tensor(2.0))

    learn = fake_learner()
    learn.fit(1, callbacks=[Two(learn)])
    assert float(learn.recorder.metrics[0][0]) == 2.0
