import os
import warnings

import pytest
from pictures import COUNTS, fill, picture

from minifast.vision.data import ImageDataBunch
from minifast.vision.folders import find_pictures, folder_classes, get_image_files


def bunch(path, **kwargs):
    return ImageDataBunch.from_folder(path, **{"bs": 2, "seed": 0, "device": "cpu", **kwargs})


def names(root, **kwargs):
    return [os.path.relpath(p, root) for p in get_image_files(root, **{"recurse": True, **kwargs})]


def test_what_is_hidden_below_the_root_is_no_picture_and_no_class(tmp_path):
    root = fill(tmp_path / ".home/p", {**COUNTS, "train/cat/.ipynb_checkpoints": 1, "train/.Trash-1000": 2})
    picture(0).save(root / "train/cat/._0.png")
    data = bunch(root)
    assert data.classes == ["cat", "dog"] and len(data.train_ds) == 13
    (root / "train/.Trash-1000/notes.xyz").touch()
    assert len(get_image_files(root / "train", recurse=True)) == 13     # and no warning


def test_linked_folders_are_followed(tmp_path):
    root = fill(tmp_path / "p", COUNTS)
    fill(tmp_path / "elsewhere", {"eel": 3})
    for part in "train", "valid":
        (root / part / "eel").symlink_to(tmp_path / "elsewhere/eel")
    data = bunch(root)
    assert data.classes == ["cat", "dog", "eel"] and len(data.train_ds) == 16
    assert data.train_ds.items[-1] == root / "train/eel/2.png"


def test_each_folder_is_read_once_at_its_own_place_and_no_link_leads_upward(tmp_path):
    root = fill(tmp_path / "p", {"a/z": 2, "b": 2})
    fill(tmp_path / "q", {"deep/down": 1})
    (root / "a/again").symlink_to(root / "b")       # named before b in any order of names
    (root / "b/loop").symlink_to(root)
    (root / "b/up").symlink_to(tmp_path)
    (root / "c").symlink_to(tmp_path / "q/deep")
    (tmp_path / "q/deep/back").symlink_to(tmp_path / "q")
    with pytest.warns(UserWarning, match=r"left out: 4 files; links to folders .*\(4\). For example .*a/again"):
        assert names(root) == ["a/z/0.png", "a/z/1.png", "b/0.png", "b/1.png", "c/down/0.png"]


def test_a_link_to_nothing_is_named(tmp_path):
    root = fill(tmp_path, COUNTS)
    (root / "train/cat/7.png").symlink_to(root / "gone.png")
    with pytest.raises(FileNotFoundError, match="there is no file .*train/cat/7.png"):
        bunch(root)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".avif", ".tga", ".pcx", ".jp2", ".ico", ".webp", ".dib"])
def test_every_format_of_pil_counts(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    picture(0, "RGB", (16, 16)).save(tmp_path / f"a/0{suffix}", **({"format": "JPEG"} if suffix == ".JPG" else {}))
    assert names(tmp_path) == [f"a/0{suffix}"]


def test_files_that_are_left_out_are_told_once_with_what_and_how_many(tmp_path):
    root = fill(tmp_path, COUNTS)
    for name in ("train/cat/x.heic", "train/dog/y.heic", "valid/cat/z.heic", "train/dog/film.mpg", "valid/dog/plain"):
        (root / name).touch()
    (root / "train/cat/notes.txt").touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = bunch(root)
    [text] = [str(w.message) for w in caught]
    assert "left out: 6 files" in text and "PIL reads no .heic (3)" in text and "files without a suffix (1)" in text
    assert ".mpg (1)" in text and ".txt (1)" in text and "train/cat/x.heic" in text.replace(os.sep, "/")
    assert len(data.train_ds) == 13


def test_texts_and_tables_beside_the_pictures_need_no_word(tmp_path):
    root = fill(tmp_path, COUNTS)
    for name in ("labels.csv", "train/cat/notes.txt", "train/README.md", "train/info.json"):
        (root / name).touch()
    assert len(bunch(root, valid_pct=0.2).train_ds) == 15


@pytest.mark.parametrize("odd, said", [
    ("train/x.png", "train lies at another depth .* its pictures .1, such as x.png. are of the class 'train'"),
    ("train/cat/old/x.png", "train/cat/old lies at another depth .* are of the class 'old'")])
def test_a_folder_that_makes_a_surprising_class_is_told(tmp_path, odd, said):
    root = fill(tmp_path, COUNTS)
    (root / odd).parent.mkdir(exist_ok=True)
    picture(9).save(root / odd)
    with pytest.warns(UserWarning, match=said):
        bunch(root)
    items = find_pictures([root / "train"])[0]
    with pytest.warns(UserWarning, match=said):
        assert set(folder_classes(items)) == {"cat", "dog", (root / odd).parent.name}


def test_classes_may_lie_at_any_one_depth(tmp_path):
    root = fill(tmp_path, {"train/tame/cat": 3, "train/wild/lynx": 3, "valid/tame/cat": 1, "valid/wild/lynx": 1})
    assert bunch(root).classes == ["cat", "lynx"]
