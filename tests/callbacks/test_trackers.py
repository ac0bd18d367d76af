"""Runs in MLflow (a store in a folder), in W&B (offline) and under Optuna's pruning, read back by their own tools."""
import pytest
import torch

from minifast.callback import Callback
from minifast.callbacks import Checkpoint, MLflow, OptunaPruning, RunTracker, WandB
from minifast.fakes import fake_learner
from minifast.metrics import accuracy

# the packages' own
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


class Cut(Callback):
    role = "watching"
    at = None

    def on_batch_end(self, train, iteration):
        if train and iteration == self.at:
            raise RuntimeError("cut")


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return pytest.importorskip("mlflow", reason="mlflow is an extra").MlflowClient((tmp_path / "store").as_uri())


def test_mlflow_holds_settings_and_columns(tmp_path, client):
    learn = fake_learner(metrics=[accuracy, {"a < b": accuracy}], path=tmp_path)
    tracker = MLflow(learn, "digits", (tmp_path / "store").as_uri(), run_name="first")
    learn.fit_one_cycle(3, 1e-2, callbacks=tracker)
    [run] = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.info.run_id == tracker.run_id and run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params["epochs"] == "3" and run.data.params["callbacks.OneCycleScheduler.lr_max"] == "0.01"
    for name, values in [("train_loss", learn.recorder.train_losses), ("valid_loss", learn.recorder.val_losses),
                         ("accuracy", [m[0] for m in learn.recorder.metrics]),
                         ("a _ b", [m[1] for m in learn.recorder.metrics])]:
        history = client.get_metric_history(run.info.run_id, name)
        assert [m.value for m in history] == pytest.approx(values) and [m.step for m in history] == [2, 4, 6]


def test_a_run_that_goes_on_is_one_run_in_mlflow(tmp_path, client):
    def run(at):
        Cut.at = at
        learn = fake_learner(path=tmp_path, callbacks=Cut())
        tracker = MLflow(learn, client=client)
        learn.fit(3, 1e-2, callbacks=[tracker, Checkpoint(learn, "run", every=1)])
        return learn, tracker
    with pytest.raises(RuntimeError, match="cut"):
        run(at=5)
    [cut] = client.search_runs(["0", client.get_experiment_by_name("minifast").experiment_id])
    assert cut.info.status == "FAILED"
    assert (tmp_path / "models/run.ckpt").exists()
    learn, tracker = run(at=None)
    assert tracker.run_id == cut.info.run_id
    history = client.get_metric_history(tracker.run_id, "valid_loss")
    assert [m.step for m in history] == [2, 4, 6]
    assert [m.value for m in history] == pytest.approx(learn.recorder.val_losses)
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_store_that_fails_is_one_warning(tmp_path, client):
    learn = fake_learner(path=tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="MLflow cannot be written, the run goes on") as told:
        learn.fit(2, callbacks=MLflow(learn, tracking_uri=(tmp_path / "file/store").as_uri()))
    assert len(told) == 1 and len(learn.recorder.val_losses) == 2


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is an extra")
    monkeypatch.setenv("WANDB_SILENT", "true")
    learn = fake_learner(metrics=[accuracy], path=tmp_path)
    tracker = WandB(learn, project="digits", mode="offline", dir=str(tmp_path))
    seen = {}

    class Look(RunTracker):     # a later one: the run is still open
        def log(self, values, step):
            seen.update(dict(tracker._run.summary), config=dict(tracker._run.config))
    learn.fit(2, 1e-2, callbacks=[tracker, Look(learn)])
    assert seen["epoch/valid_loss"] == pytest.approx(learn.recorder.val_losses[-1])
    assert seen["batch/lr"] == 1e-2 and seen["_step"] == 4 and seen["config"]["epochs"] == 2
    with wandb.init(mode="offline", dir=str(tmp_path)) as run:
        learn.fit(1, callbacks=WandB(learn, run))
        assert dict(run.summary)["epoch/accuracy"] == learn.recorder.metrics[-1][0]
    wandb.teardown()    # W&B writes its files in a process of its own: this waits for it
    [file] = tmp_path.glob(f"wandb/offline-run-*-{tracker.run_id}/*.wandb")
    assert file.read_bytes().count(b"batch/loss") >= 4


def test_optuna_prunes_what_is_behind():
    optuna = pytest.importorskip("optuna", reason="optuna is an extra")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        torch.manual_seed(0)
        learn = fake_learner(train_length=200, valid_length=50)
        lr = trial.suggest_categorical("lr", [1e-2, 1e-6])
        learn.fit(4, lr, callbacks=OptunaPruning(learn, trial))
        reported.append(learn.recorder.val_losses)
        return learn.recorder.val_losses[-1]

    reported = []
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1))
    for lr in (1e-2, 1e-6):
        study.enqueue_trial({"lr": lr})
    study.optimize(objective, n_trials=2)
    done, pruned = study.trials
    assert done.state.name == "COMPLETE" and pruned.state.name == "PRUNED"
    assert list(done.intermediate_values.values()) == pytest.approx(reported[0]) and len(reported) == 1
    assert list(pruned.intermediate_values) == [0, 1]
    assert pruned.intermediate_values[1] > done.intermediate_values[1]


def test_a_study_of_the_other_direction_is_refused():
    optuna = pytest.importorskip("optuna", reason="optuna is an extra")
    study = optuna.create_study(direction="maximize")
    learn = fake_learner()
    with pytest.raises(ValueError, match="to maximize, and of 'valid_loss' smaller is better"):
        learn.fit(1, callbacks=OptunaPruning(learn, study.ask()))
    assert learn.recorder.val_losses == []


@pytest.mark.parametrize("package, make", [("mlflow", MLflow), ("wandb", WandB)])
def test_without_the_package_the_error_says_how_to_get_it(package, make, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    learn = fake_learner()
    with pytest.raises(ImportError, match=rf"pip install 'minifast\[{package}\]'"):
        learn.fit(1, callbacks=make(learn))
