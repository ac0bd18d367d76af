"""Small pictures for tests, and folders of them."""
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train/cat": 7, "train/dog": 6, "valid/cat": 3, "valid/dog": 2}


def picture(i, mode="L", size=(8, 6)):
    """A picture that no other `i` gives; `size` is (height, width)."""
    rng = np.random.default_rng(i)
    return Image.fromarray(rng.integers(0, 256, size if mode == "L" else (*size, 3), dtype=np.uint8))


def fill(root, counts, suffix=".png", **kwargs):
    """As many pictures in each of these folders; returns the root."""
    i = 0
    for name, n in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            picture(i, **kwargs).save(root / name / f"{k}{suffix}")
            i += 1
    return Path(root)
