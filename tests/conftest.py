"""One seed for every test, and no windows."""
import os
import random

import numpy as np
import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
