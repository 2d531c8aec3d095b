"""``folder:PATH``: the user's own images, of any size and mode.

Folders inside PATH are classes: "y" is the folder's number in alphabetical order, and "domain" is the same number, so
that two folders are two domains. Folders named train, test or val (and nothing else) are splits. Options follow a
question mark: ``folder:PATH?skip=corrupt`` leaves out unreadable images instead of naming them in an error,
``folder:PATH?channels=1`` makes the images gray, ``folder:PATH?size=native`` keeps photographs at native size: training
takes random crops of them (:mod:`zoo.data.native`). The prepared file is named after the folder's content (names,
sizes, times), so that a changed folder is prepared again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.facts import Facts, Row, Rows
from zoo.data.images import open_picture, to_pil
from zoo.data.store import Progress, lock, write

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"}
SPLITS = {"train", "test", "val", "valid", "validation"}


def parse_options(name: str, allowed: Sequence[str]) -> tuple[str, dict[str, str]]:
    """``KIND:PATH?key=value&key=value`` to PATH and its options. A question mark not followed by key=value belongs to
    the path. Raises ValueError for an option that is not in ``allowed``."""
    path, _, query = name.split(":", 1)[1].rpartition("?")
    pairs = [pair.split("=", 1) for pair in query.split("&")]
    if not path or any(len(pair) != 2 for pair in pairs):
        return name.split(":", 1)[1], {}
    for key, _ in pairs:
        if key not in allowed:
            raise ValueError(f"{name}: unknown option '{key}'; must be one of {', '.join(allowed)}")
    return path, dict(pairs)


class Folder:
    """A folder of images. ``facts``: of its images; ``files``: their paths by split. Raises ValueError if there are
    none."""

    def __init__(self, name: str):
        path, options = parse_options(name, ("skip", "channels", "size"))
        self.root = Path(path).expanduser().resolve()
        self.skip = options.get("skip") == "corrupt"
        if options.get("skip", "corrupt") != "corrupt":
            raise ValueError(f"{name}: skip must be corrupt, got {options['skip']}")
        self.large = options.get("size") == "native"
        if options.get("size", "native") != "native":
            raise ValueError(f"{name}: size must be native, got {options['size']}")
        if options.get("channels", "3") not in ("1", "3"):
            raise ValueError(f"{name}: channels must be 1 (gray) or 3 (color), got {options['channels']}")
        if not self.root.is_dir():
            raise ValueError(f"folder:{path}: there is no such folder")
        folders = [entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != "."]
        has_splits = set(folders) <= SPLITS and bool(folders)
        self.splits = {s: self.root / s for s in sorted(folders)} if has_splits else {"train": self.root}
        self.files = {s: sorted(_images(folder)) for s, folder in self.splits.items()}
        if not any(self.files.values()):
            suffixes = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise ValueError(f"folder:{path}: no images in it; looked for {suffixes}")
        classes = self._classes()
        self.facts = Facts(
            name=f"folder-{self.root.name}",
            title=f"Images in {self.root}",
            channels=int(options.get("channels", "3")),
            resolution=None,
            classes=classes,
            keys=("x", "y", "domain") if classes else ("x",),
            splits={s: len(files) for s, files in self.files.items() if files},
            license="the user's own",
            about=f"From {self.root}; class folders are labels and domains." if classes else f"From {self.root}.",
        )

    def _class(self, split: str, file: Path) -> str | None:
        parts = file.relative_to(self.splits[split]).parts
        return parts[0] if len(parts) > 1 else None

    def _classes(self) -> tuple[str, ...]:
        """The folders' names; () if an image lies outside of all folders, which are then no classes."""
        classes = {self._class(s, file) for s, files in self.files.items() for file in files}
        return () if None in classes else tuple(sorted(name for name in classes if name))

    def _state(self, split: str) -> str:
        """A hash of the names, sizes and times of a split's images, and of the options."""
        state = hashlib.sha256(f"{self.root} {self.skip} {self.facts.channels}".encode())
        for file in self.files[split]:
            stat = file.stat()
            state.update(f"{file.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return state.hexdigest()[:12]

    def prepare(self, resolution: int | None, split: str, progress: Progress | None, check: bool) -> Path:
        """The prepared file of a split; arguments as in :func:`zoo.data.prepare`.

        Raises ValueError with the names of unreadable images, or if ``resolution`` is None and the images are not all
        squares of one size.
        """
        from zoo.data.preparation import check_split, damage, target

        check_split(self.facts, split)
        resolution = None if self.large else resolution or self._resolution(split)
        path = target(f"{self.facts.name}-{self._state(split)}", resolution, split)
        if path.exists() and not damage(path, check):
            return path
        with lock(path.parent):
            if not path.exists() or damage(path, check):
                files = self.files[split]
                unreadable: list[str] = []
                rows = Rows(self._rows(split, unreadable), len(files), exact=False)
                try:
                    write(path, self.facts, rows, resolution=resolution, source="folder", progress=progress)
                except OSError:
                    if len(unreadable) == len(files):
                        raise ValueError(
                            f"folder:{self.root}: none of its {len(files)} images can be read: {unreadable[0]}"
                        ) from None
                    raise
        return path

    def _rows(self, split: str, unreadable: list[str]) -> Iterator[Row]:
        """Rows of the readable images; the names of the others are added to ``unreadable``."""
        for file in self.files[split]:
            try:
                image: Image.Image | bytes = self.read(file)
                if self.large and file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
                    image = file.read_bytes()  # it can be decoded
            except Exception as error:  # Pillow's decoders raise many kinds
                unreadable.append(f"{file.relative_to(self.root)} ({' '.join(str(error).split())[:80]})")
                continue
            name = self._class(split, file)
            if name is None or not self.facts.classes:
                yield {"x": image}
            else:
                y = self.facts.classes.index(name)
                yield {"x": image, "y": y, "domain": y}
        if unreadable and not self.skip and len(unreadable) < len(self.files[split]):
            more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
            raise ValueError(
                f"folder:{self.root}: {len(unreadable)} of {len(self.files[split])} images can't be read: "
                f"{', '.join(unreadable[:5])}{more}; repair or remove them, or leave them out with "
                f"folder:{self.root}?skip=corrupt"
            )

    def read(self, file: Path) -> Image.Image:
        """One image as PIL, with the folder's channels. Raises the exceptions of Pillow."""
        with open_picture(file) as image:
            return to_pil(image, self.facts.channels)

    def _resolution(self, split: str) -> int:
        """The common side of the images, from their headers."""
        sizes = set()
        for file in self.files[split]:
            try:
                with open_picture(file) as image:
                    sizes.add(image.size)
            except Exception:  # the error comes when the images are read
                continue
            if len(sizes) > 1 or image.width != image.height:
                raise ValueError(
                    f"folder:{self.root}: images are not squares of one size: give a resolution, such as 64"
                )
        return next(iter(sizes), (64, 64))[0]


def _images(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(parent) / name
