from fastai.vision.all import *
from sklearn.datasets import load_digits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import TensorDataset, random_split
from vit import ViT, layer_decay


class EMA(Callback):
    """The mean of the weights is validated, and stays at the end."""
    def __init__(self, decay):
        self.decay = decay

    def before_fit(self):
        self.mean = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def after_step(self):
        self.mean.update_parameters(self.model)

    def before_validate(self):
        self.own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean.module.state_dict())

    def after_validate(self):
        self.model.load_state_dict(self.own)

    def after_fit(self):
        self.model.load_state_dict(self.mean.module.state_dict())


def groups(model):
    head = params(model.head)
    blocks = [params(part) for part in model.blocks]
    return [[model.cls, model.place, *params(model.patches)], *blocks[:-1], blocks[-1] + params(model.norm), head]


def main(n=1797, depth=2, epochs=15):
    set_seed(0)
    x, y = load_digits(return_X_y=True)
    sets = random_split(TensorDataset(tensor(x[:n] / 16).float().reshape(-1, 1, 8, 8), tensor(y[:n])), [0.8, 0.2])
    lrs = np.array(layer_decay(ViT(depth=depth), 3e-3))
    learn = Learner(DataLoaders.from_dsets(*sets, bs=64), ViT(depth=depth), LabelSmoothingCrossEntropy(),
                    metrics=[accuracy], wd=0.05, splitter=groups, cbs=[MixUp(0.2), GradientClip(1.0)]).to_bf16()
    learn.fit(epochs, lrs, cbs=[ParamScheduler({"lr": combined_cos(0.1, lrs / 25, lrs, lrs / 1e5)}), EMA(0.98)])
    print("learning rates of the groups:", [f"{lr:.1e}" for lr in lrs])
