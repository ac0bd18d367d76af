"""Which files of a folder are pictures, and which class each one's folder makes."""
from __future__ import annotations

import functools
import mimetypes
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["get_image_files", "find_pictures", "folder_classes"]

EXAMPLES = 3    # of files, in a warning
OWN_FILES = (".pth", ".ckpt", ".lock")  # a learner's, which may lie beside its pictures


def get_image_files(path: Path | str, recurse: bool = False) -> list[Path]:
    """The pictures in a folder, in sorted order.

    A picture is a file whose suffix belongs to a format that the installed PIL reads (plugins that are registered count
    too). What is hidden (its name begins with a dot) is left out. A warning counts the other files that are left out,
    if any of them may be a picture: its suffix is that of a picture, or is unknown.

    path: the folder.
    recurse: also look into the folders below. Linked folders are followed; each real folder is read once.

    FileNotFoundError if there is no such folder.

    >>> for name in ("b.png", "a.jpg", ".hidden.png"):
    ...     Path(name).touch()
    >>> [file.name for file in get_image_files(".")]
    ['a.jpg', 'b.png']
    """
    return find_pictures([Path(path)], recurse)[0]


def find_pictures(folders: Sequence[Path], recurse: bool = True) -> list[list[Path]]:
    """The pictures of each folder, as `get_image_files` finds them; one warning names what was left out of all."""
    left_out: list[str] = []
    found = [sorted(_pictures(folder, recurse, left_out)) for folder in folders]
    if any(map(_may_be_a_picture, left_out)):
        warnings.warn(_left_out(left_out))
    return [[Path(name) for name in names] for names in found]  # names sort ten times faster than paths


def _pictures(root: Path, recurse: bool, left_out: list[str]) -> Iterator[str]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    real = [os.fspath(root)]
    linked: list[str] = []
    seen = {_identity(parent) for parent in root.resolve().parents}
    is_read = functools.cache(_is_read)     # PIL is asked once for a suffix: for each file takes a quarter of the walk
    while real or linked:
        # a linked folder comes after all real ones: what lies in both places is found at its own
        is_link = not real
        folder = linked.pop() if is_link else real.pop()
        if (this := _identity(folder)) in seen:
            left_out.append(f"{folder}{os.sep}")
            continue
        seen.add(this)
        if is_link:     # one in there that leads upward would be a loop
            seen.update(map(_identity, Path(folder).resolve().parents))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if recurse:
                        (linked if entry.is_symlink() else real).append(entry.path)
                elif is_read(os.path.splitext(entry.name)[1].lower()):
                    yield entry.path
                else:
                    left_out.append(entry.path)


def _identity(folder: Path | str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_read(suffix: str) -> bool:
    """Whether PIL reads pictures of this suffix. It also knows some that it can only recognise."""
    from PIL import Image, ImageFile
    Image.preinit()     # the common formats; all of them take a tenth of a second
    if suffix not in Image.EXTENSION:
        Image.init()
    name = Image.EXTENSION.get(suffix, "")
    opener = Image.OPEN.get(name, [None])[0]
    only_recognised = isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    return opener is not None and not only_recognised and name != "MPEG"


def _may_be_a_picture(name: str) -> bool:
    """Unlike a text or a table, which often lies beside pictures; a linked folder that is read already may be, too."""
    if name.endswith(OWN_FILES):
        return False
    kind = mimetypes.guess_type(name)[0]
    return name.endswith(os.sep) or kind is None or kind.startswith("image/")


def _left_out(names: list[str]) -> str:
    suffixes = Counter(os.path.splitext(name)[1] for name in names if not name.endswith(os.sep))
    reasons = [f"PIL reads no {suffix or 'files without a suffix'} ({n})" for suffix, n in suffixes.most_common()]
    again = len(names) - suffixes.total()
    reasons += [f"links to folders that are read anyway, or that lead upward ({again})"] * (again > 0)
    some = ", ".join(sorted(names)[:EXAMPLES]) + ", ..." * (len(names) > EXAMPLES)
    return f"left out: {len(names)} file{'s' * (len(names) > 1)}; {'; '.join(reasons)}. For example {some}"


def folder_classes(items: Sequence[Path]) -> list[str]:
    """The name of each picture's folder; a warning names a folder that lies deeper or less deep than most others."""
    folders = [os.path.dirname(item) for item in items]     # a path's own `parent` takes four times as long
    counts = {Path(folder): n for folder, n in Counter(folders).items()}
    depths: Counter[int] = Counter()
    for folder, n in counts.items():
        depths[len(folder.parts)] += n
    usual = depths.most_common(1)[0][0] if depths else 0
    if odd := sorted(folder for folder in counts if len(folder.parts) != usual):
        first = next(item for item in items if item.parent == odd[0])
        more = f" (so do {', '.join(map(str, odd[1:EXAMPLES]))})" if len(odd) > 1 else ""
        warnings.warn(f"a picture's class is the name of its folder, and {odd[0]} lies at another depth than most of "
                      f"them{more}: its pictures ({counts[odd[0]]}, such as {first.name}) are of the class "
                      f"{odd[0].name!r}. Move them if they should not be")
    names = {folder: os.path.basename(folder) for folder in set(folders)}
    return [names[folder] for folder in folders]
