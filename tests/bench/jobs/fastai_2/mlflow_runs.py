import mlflow
from fastai.tabular.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split


def main(tracking_uri="sqlite:///mlflow.db", lrs=(1e-4, 1e-2), epochs=4):
    x, y = load_digits(return_X_y=True)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment("digits")
    for lr in lrs:
        set_seed(0)
        sets = random_split(TensorDataset(tensor(x / 16).float(), tensor(y)), [0.8, 0.2])
        learn = Learner(DataLoaders.from_dsets(*sets, bs=64), nn.Linear(64, 10), CrossEntropyLossFlat(),
                        metrics=[accuracy])
        with mlflow.start_run(run_name=f"lr {lr}"), learn.no_bar(), learn.no_logging():
            mlflow.log_params({"lr_max": lr, "epochs": epochs})
            learn.fit_one_cycle(epochs, lr)
            for epoch, values in enumerate(learn.recorder.values):
                mlflow.log_metrics(dict(zip(learn.recorder.metric_names[1:-1], values, strict=True)), epoch)
    runs = mlflow.search_runs(experiment_names=["digits"], order_by=["metrics.accuracy DESC"], output_format="list")
    for run in runs:
        print(f"{run.info.run_name:10} accuracy {run.data.metrics['accuracy']:.4f}, lr_max {run.data.params['lr_max']}")
