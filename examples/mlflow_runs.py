"""Runs in MLflow: settings as parameters, the table as metrics; then the best run is asked for."""
import sys

import mlflow
from sklearn.datasets import load_digits

from minifast.basics import *


def main(tracking_uri="sqlite:///mlflow.db", lrs=(1e-4, 1e-2), epochs=4):
    x, y = load_digits(return_X_y=True)
    for lr in lrs:
        torch.manual_seed(0)
        data = DataBunch.from_arrays(x / 16, y, bs=64, seed=0)
        learn = Learner(data, nn.Linear(64, 10), metrics=[accuracy], silent=True)
        learn.fit_one_cycle(epochs, lr, callbacks=MLflow(learn, "digits", tracking_uri, run_name=f"lr {lr}"))
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], order_by=["metrics.accuracy DESC"])
    for run in runs:
        print(f"{run.info.run_name:10} accuracy {run.data.metrics['accuracy']:.4f}, "
              f"lr_max {run.data.params['callbacks.OneCycleScheduler.lr_max']}")
    return runs


if __name__ == "__main__":
    main(*sys.argv[1:])
