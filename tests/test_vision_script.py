"""A whole script of fastai v1's kind, on a folder of pictures of mixed sizes, formats and orientations."""
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]

SCRIPT = """
from minifast.vision import *
path = Path("pets")
torch.manual_seed(0)
data  = (ImageList.from_folder(path).split_by_rand_pct(0.2, seed=42).label_from_folder()
         .transform(get_transforms(), size=SIZE).databunch(bs=8, seed=1).normalize(imagenet_stats))
data.show_batch(rows=4)
learn = cnn_learner(data, models.resnet18, pretrained=False, metrics=error_rate)
learn.lr_find(num_it=12); learn.recorder.plot(suggestion=True)
learn.fit_one_cycle(2)
learn.save("stage-1"); learn.unfreeze(); learn.fit_one_cycle(1, slice(1e-6, 1e-4)); learn.load("stage-1")
learn.recorder.plot_losses(); learn.recorder.plot_lr(show_moms=True); learn.recorder.plot_metrics()
interp = learn.interpret(); interp.plot_top_losses(9); interp.plot_confusion_matrix(normalize=True, figsize=(6, 6))
interp.plot_top_losses(6, heatmap=True); interp.most_confused()
learn.show_results(rows=3); preds, y = learn.TTA()
assert preds.shape == (len(data.valid_ds), 4) and torch.allclose(preds.sum(1), torch.ones(len(preds)))
mine = learn.predict("new.jpg")
learn.export("pets.mf")
theirs = load_learner("pets.mf").predict("new.jpg")
assert theirs[0] == mine[0] and torch.equal(theirs[2], mine[2])
print(theirs[0], data)
"""

# without windows figures stay open
SAVE = """
for number in plt.get_fignums():
    plt.figure(number).savefig(f"figure{number}.png", dpi=80)
"""

KINDS = ("circle", "square", "stripes", "cross")


def drawing(kind, rng, size):
    """A shape on a coloured, uneven ground."""
    w, h = size
    ground = rng.integers(90, 220, 3) + np.linspace(-60, 60, w)[None, :, None] + rng.normal(0, 8, (h, w, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw, ink = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(0, 90, 3))
    side = min(w, h) * rng.uniform(0.5, 0.8)
    x, y = rng.uniform(0, w - side), rng.uniform(0, h - side)
    box = (x, y, x + side, y + side)
    if kind == "circle":
        draw.ellipse(box, fill=ink)
    elif kind == "square":
        draw.rectangle(box, fill=ink)
    elif kind == "stripes":
        for k in range(4):
            draw.rectangle((x, y + k * side / 4, x + side, y + (k + 0.5) * side / 4), fill=ink)
    else:
        draw.line((x, y, x + side, y + side), ink, int(side / 6))
        draw.line((x, y + side, x + side, y), ink, int(side / 6))
    return image


def mixed_folder(root, n=15):
    """Pictures of each kind in many sizes, formats, modes and EXIF orientations, in folders of folders."""
    rng = np.random.default_rng(0)
    saves = [("jpg", "RGB"), ("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("jpg", "L"), ("webp", "RGB"),
             ("bmp", "RGB"), ("gif", "P"), ("tiff", "RGB"), ("JPEG", "RGB")]
    for kind in KINDS:
        for i in range(n):
            size = tuple(int(v) for v in rng.integers(60, 300, 2))
            suffix, mode = saves[i % len(saves)]
            image = drawing(kind, rng, size).convert(mode)
            folder = root / f"batch{i % 2}" / kind
            folder.mkdir(parents=True, exist_ok=True)
            options = {}
            if suffix.lower() in ("jpg", "jpeg"):
                exif = Image.Exif()
                exif[0x0112] = i % 8 + 1
                options["exif"] = exif
            image.save(folder / f"{i:02}.{suffix}", **options)
    drawing("circle", rng, (300, 200)).save(root.parent / "new.jpg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder in which the script has run, and what it printed."""
    folder = tmp_path_factory.mktemp("script")
    mixed_folder(folder / "pets")
    (folder / "script.py").write_text(SCRIPT.replace("SIZE", "128") + SAVE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
           "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "script.py"], cwd=folder, env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_script_runs(drawn):
    folder, out = drawn
    assert "4 classes: circle, cross, square, stripes" in out and (folder / "pets.mf").stat().st_size > 40e6
    assert (folder / "pets/models/stage-1.pth").is_file()


def test_every_picture_it_draws_shows_something(drawn):
    folder, _ = drawn
    figures = sorted(folder.glob("figure*.png"))
    assert len(figures) == 9
    for file in figures:
        pixels = plt.imread(file)[..., :3]
        ink = (pixels.min(-1) < 0.95).mean()
        assert 0.01 < ink < 0.99 and len(np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)) > 4, file.name
