"""One seed for every test, one thread, and no windows."""
import os
import random
import signal

# models this small gain nothing from a second thread, and threads of several processes wait for each other; the
# processes that tests start inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell lets what it starts in the background ignore it


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
