from functools import partial

import lightning as L
import optuna
import torch
from optuna_integration import PyTorchLightningPruningCallback
from same import mlp
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics import Accuracy

from .shared import Task, fit


def objective(trial, epochs):
    L.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    sets = random_split(TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y)), [0.8, 0.2])
    model = mlp(64, trial.suggest_int("width", 8, 64, log=True), 10)
    metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
    task = Task(model, nn.CrossEntropyLoss(), metrics, trial.suggest_float("lr", 1e-5, 1e-1, log=True))
    trainer = fit(task, *sets, epochs, bs=64, num_sanity_val_steps=0, enable_progress_bar=False,
                  callbacks=[PyTorchLightningPruningCallback(trial, monitor="accuracy")])
    return float(trainer.callback_metrics["accuracy"])


def main(n_trials=12, epochs=5):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    study.optimize(partial(objective, epochs=epochs), n_trials=n_trials)
    states = [trial.state.name for trial in study.trials]
    print(f"{states.count('COMPLETE')} trials to the end, {states.count('PRUNED')} pruned; the best: "
          f"accuracy {study.best_value:.4f} with {study.best_params}")
