"""Small networks that examples/ write in a line or two, and a quiet trainer: counted for nobody."""
import logging

from torch import nn

from minifast.layers import simple_cnn

QUIET = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def small_net(n_in, n_out, strides=(2, 2, 2)):
    return nn.Sequential(simple_cnn((n_in, 16, 32, 64), strides=strides, bn=True), nn.Linear(64, n_out))


def mlp(n_in, hidden, n_out):
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_out))
