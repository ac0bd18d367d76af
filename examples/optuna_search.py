"""Optuna looks for a learning rate and a width, and ends trials that are behind."""
import optuna
from sklearn.datasets import load_digits

from minifast.basics import *


def objective(trial, epochs):
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = DataBunch.from_arrays(x / 16, y, bs=64, seed=0)
    width = trial.suggest_int("width", 8, 64, log=True)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    learn = Learner(data, model, metrics=[accuracy], silent=True)
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    learn.fit_one_cycle(epochs, lr, callbacks=OptunaPruning(learn, trial, monitor="accuracy"))
    return learn.validate()[1]


def main(n_trials=12, epochs=5):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    study.optimize(partial(objective, epochs=epochs), n_trials=n_trials)
    states = [trial.state.name for trial in study.trials]
    print(f"{states.count('COMPLETE')} trials to the end, {states.count('PRUNED')} pruned; the best: "
          f"accuracy {study.best_value:.4f} with {study.best_params}")
    return study


if __name__ == "__main__":
    main()
