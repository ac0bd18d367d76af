import optuna
from fastai.tabular.all import *
from optuna_integration import FastAIV2PruningCallback
from same import mlp
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split


def objective(trial, epochs):
    set_seed(0)
    x, y = load_digits(return_X_y=True)
    dls = DataLoaders.from_dsets(*random_split(TensorDataset(tensor(x / 16).float(), tensor(y)), [0.8, 0.2]), bs=64)
    learn = Learner(dls, mlp(64, trial.suggest_int("width", 8, 64, log=True), 10), CrossEntropyLossFlat(),
                    metrics=[accuracy])
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr, cbs=FastAIV2PruningCallback(trial, monitor="accuracy"))
        return learn.validate()[1]


def main(n_trials=12, epochs=5):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    study.optimize(partial(objective, epochs=epochs), n_trials=n_trials)
    states = [trial.state.name for trial in study.trials]
    print(f"{states.count('COMPLETE')} trials to the end, {states.count('PRUNED')} pruned; the best: "
          f"accuracy {study.best_value:.4f} with {study.best_params}")
