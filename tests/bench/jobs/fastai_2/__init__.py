"""Jobs of examples/ as programs for fastai 2, in its own idiom, for the count of lines: same data, same models."""
from fastai.basics import defaults

defaults.use_cuda = False
