from detection import Squares, mean_iou, model
from fastai.vision.all import *


class Losses(Callback):
    """The parts of the training loss as columns, as means over the epoch."""
    order = Recorder.order - 1

    def before_fit(self):
        self.names = ["classification", "bbox_regression"]
        self.parts = {name: [] for name in self.names}
        self.learn.metrics = self.learn.metrics + [ValueMetric(partial(self.mean, name), name) for name in self.names]

    def after_pred(self):
        if self.training:
            for name in self.names:
                self.parts[name].append(self.pred[name].detach())

    def mean(self, name):
        values, self.parts[name] = self.parts[name], []
        return torch.stack(values).mean()


def collate(samples):
    images, targets = map(list, zip(*samples, strict=True))
    return images, targets, targets


def total(losses, targets):
    return sum(losses.values()) if isinstance(losses, dict) else tensor(math.nan)


def main(n=300, epochs=8):
    set_seed(0)
    dls = DataLoaders.from_dsets(Squares(n, seed=0), Squares(60, seed=1), bs=10, create_batch=collate)
    learn = Learner(dls, model(), total, metrics=[AvgMetric(mean_iou)], cbs=Losses())
    learn.fit_one_cycle(epochs, 1e-3)
