"""Runs in MLflow and in Weights & Biases."""
from __future__ import annotations

import re
import time
from typing import Any

from .run_tracker import RunTracker, extra

__all__ = ["MLflow", "WandB"]


class MLflow(RunTracker):
    """Keeps each fit as a run of MLflow: its settings as parameters, the table's columns as metrics after each epoch.

    learn: the learner whose fits are kept.
    experiment: the name of MLflow's experiment; it is made if there is none.
    tracking_uri: of the store, such as "sqlite:///mlflow.db"; None: MLflow's own choice.
    run_name: None: MLflow makes one up.
    client: in place of a `MlflowClient(tracking_uri)`.

    A run that goes on from a checkpoint goes on in MLflow, too; `run_id` is its name there. Trouble with the store is a
    warning, and the fit goes on. ImportError without the package (`pip install 'minifast[mlflow]'`).

    >>> from unittest.mock import MagicMock     # in the place of a client of MLflow
    >>> learn, client = fake_learner(), MagicMock()
    >>> learn.fit(2, callbacks=MLflow(learn, client=client))
    >>> client.create_run.call_count
    1
    """

    def __init__(self, learn: Any, experiment: str = "minifast", tracking_uri: str | None = None,
                 run_name: str | None = None, client: Any = None) -> None:
        super().__init__(learn)
        self.experiment, self.tracking_uri, self.run_name = experiment, tracking_uri, run_name
        self.run_id: str | None = None
        self._client = client

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.run_id = None
        if self._client is None:
            self.troubles = (OSError, extra("mlflow", "MLflow").exceptions.MlflowException)

    def begin(self, settings: dict[str, Any]) -> None:
        """Make a run, and give it the settings."""
        if self._client is None:
            self._client = extra("mlflow", "MLflow").MlflowClient(self.tracking_uri)
        if self.run_id is not None:
            return
        found = self._client.get_experiment_by_name(self.experiment)
        name = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        self.run_id = self._client.create_run(name, run_name=self.run_name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self.run_id, key, value)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send these values, under the columns' own names."""
        now = int(time.time() * 1000)
        for name, value in values.items():
            key = re.sub(r"[^\w\-./ ]", "_", name.removeprefix("epoch/"))
            self._client.log_metric(self.run_id, key, value, timestamp=now, step=step)

    def end(self, exception: BaseException | None) -> None:
        """Say how the run ended."""
        status = "FINISHED" if exception is None else "FAILED" if isinstance(exception, Exception) else "KILLED"
        self._client.set_terminated(self.run_id, status)

    def state_dict(self) -> dict[str, Any]:
        """How much has been sent, and to which run."""
        return {"done": self.done, "run_id": self.run_id}


class WandB(RunTracker):
    """Keeps each fit as a run of Weights & Biases: its settings as config, losses, learning rates and momenta of each
    batch and the table's columns after each epoch.

    learn: the learner whose fits are kept.
    run: a run of yours, from `wandb.init`, for all fits, which you end yourself; None: one for each fit.
    init: arguments of `wandb.init` for these: `project`, `mode="offline"`, ...

    A run that goes on from a checkpoint goes on in W&B, too. Trouble is a warning, and the fit goes on. ImportError
    without the package (`pip install 'minifast[wandb]'`).

    >>> from unittest.mock import MagicMock     # in the place of what `wandb.init` returns
    >>> learn, run = fake_learner(), MagicMock()
    >>> learn.fit(2, callbacks=WandB(learn, run))
    >>> run.log.called
    True
    """

    each_batch = True

    def __init__(self, learn: Any, run: Any = None, **init: Any) -> None:
        super().__init__(learn)
        self.own, self.init = run, init
        self.run_id: str | None = None
        self._run: Any = None

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.run_id = None
        if self.own is None:
            self.troubles = (OSError, extra("wandb", "Weights & Biases").errors.Error)

    def begin(self, settings: dict[str, Any]) -> None:
        """Make a run with these settings, or go on with one."""
        if self.own is not None:
            self._run = self.own
            self._run.config.update(settings, allow_val_change=True)
        else:
            same = {"id": self.run_id, "resume": "allow"} if self.run_id else {}
            self._run = extra("wandb", "Weights & Biases").init(config=settings, **{**self.init, **same})
        self.run_id = self._run.id

    def log(self, values: dict[str, float], step: int) -> None:
        """Send these values."""
        # W&B waits for more of the same step, unless `commit` says that this is all
        self._run.log(values, step=step, commit=any(name.startswith("epoch/") for name in values))

    def end(self, exception: BaseException | None) -> None:
        """End a run that was begun here."""
        if self.own is None:
            self._run.finish(exit_code=0 if exception is None else 1)

    def on_train_end(self, exception: BaseException | None) -> None:
        super().on_train_end(exception)
        self._run = None

    def state_dict(self) -> dict[str, Any]:
        """How much has been sent, and to which run."""
        return {"done": self.done, "run_id": self.run_id}
