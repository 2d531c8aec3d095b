"""``folder:PATH``: the user's own images, of any size and mode.

Folders inside PATH are classes: "y" is the folder's number in alphabetical order, and "domain" is the same
number, so that two folders are two domains. Folders named train, test or val (and nothing else) are splits.
Options follow a question mark: ``folder:PATH?skip=corrupt`` leaves out images that can't be read instead of
naming them in an error, ``folder:PATH?channels=1`` makes them gray. The prepared file is named after the
folder's content (names, sizes, times), so that a changed folder is prepared anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.data.facts import Facts, Rows
from zoo.data.images import to_pil
from zoo.data.store import Progress, lock, write

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"}
SPLITS = {"train", "test", "val", "valid", "validation"}


def options(name: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """``KIND:PATH?key=value&key=value`` to PATH and the options. ValueError for an option that is not
    ``known``.

    A question mark not followed by key=value belongs to the path.
    """
    path, _, query = name.split(":", 1)[1].rpartition("?")
    pairs = [pair.split("=", 1) for pair in query.split("&")]
    if not path or any(len(pair) != 2 for pair in pairs):
        return name.split(":", 1)[1], {}
    for key, _ in pairs:
        if key not in known:
            raise ValueError(f"{name}: unknown option '{key}'; known: {', '.join(known)}")
    return path, dict(pairs)


class Folder:
    """A folder of images: ``facts``, and ``prepare`` as for a registered set. ValueError where it holds no
    images."""

    def __init__(self, name: str):
        path, chosen = options(name, ("skip", "channels"))
        self.root = Path(path).expanduser().resolve()
        self.skip = chosen.get("skip") == "corrupt"
        if chosen.get("skip", "corrupt") != "corrupt":
            raise ValueError(f"{name}: skip={chosen['skip']} is unknown; skip=corrupt leaves out unreadable images")
        if chosen.get("channels", "3") not in ("1", "3"):
            raise ValueError(f"{name}: channels={chosen['channels']}; images have 1 (gray) or 3 (color)")
        if not self.root.is_dir():
            raise ValueError(f"folder:{path}: there is no such folder")
        inside = [entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != "."]
        split = set(inside) <= SPLITS and bool(inside)
        self.splits = {s: self.root / s for s in sorted(inside)} if split else {"train": self.root}
        self.files = {s: sorted(_images(folder)) for s, folder in self.splits.items()}
        if not any(self.files.values()):
            kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise ValueError(f"folder:{path}: no images in it; looked for {kinds}")
        classes = sorted({c for s, files in self.files.items() for f in files if (c := self._class(s, f))})
        if any(self._class(s, f) is None for s, files in self.files.items() for f in files):
            classes = []  # images that belong to no class: the folders are not classes
        self.facts = Facts(
            f"folder-{self.root.name}",
            f"Images in {self.root}",
            int(chosen.get("channels", "3")),
            None,
            tuple(classes),
            ("x", "y", "domain") if classes else ("x",),
            {s: len(files) for s, files in self.files.items() if files},
            "the user's own",
            f"From {self.root}; class folders are labels and domains." if classes else f"From {self.root}.",
        )

    def _class(self, split: str, file: Path) -> str | None:
        parts = file.relative_to(self.splits[split]).parts
        return parts[0] if len(parts) > 1 else None

    def _state(self, split: str) -> str:
        """A hash of the names, sizes and times of a split's images, and of the options."""
        state = hashlib.sha256(f"{self.root} {self.skip} {self.facts.channels}".encode())
        for file in self.files[split]:
            stat = file.stat()
            state.update(f"{file.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return state.hexdigest()[:12]

    def prepare(self, resolution: int | None, split: str, progress: Progress | None, check: bool) -> Path:
        """The prepared file. ValueError names the images that can't be read, and asks for a resolution where
        ``resolution`` is None and the images are not all squares of one size."""
        from zoo.data.preparation import check_split, damage, target

        check_split(self.facts, split)
        resolution = resolution or self._resolution(split)
        path = target(f"{self.facts.name}-{self._state(split)}", resolution, split)
        if path.exists() and not damage(path, check):
            return path
        with lock(path.parent):
            if not path.exists() or damage(path, check):
                files = self.files[split]
                bad: list[str] = []
                rows = Rows(self._rows(split, bad), len(files), exact=False)
                try:
                    write(path, self.facts, rows, resolution=resolution, source="folder", progress=progress)
                except OSError:
                    if len(bad) == len(files):
                        raise ValueError(f"folder:{self.root}: none of its {len(files)} images can be read") from None
                    raise
        return path

    def _rows(self, split: str, bad: list[str]) -> Iterator[dict[str, Any]]:
        for file in self.files[split]:
            try:
                image = self.read(file)
            except Exception as error:  # Pillow's decoders raise many kinds
                bad.append(f"{file.relative_to(self.root)} ({' '.join(str(error).split())[:80]})")
                continue
            y = self.facts.classes.index(self._class(split, file)) if self.facts.classes else None
            yield {"x": image} if y is None else {"x": image, "y": y, "domain": y}
        if bad and not self.skip and len(bad) < len(self.files[split]):
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise ValueError(
                f"folder:{self.root}: {len(bad)} of {len(self.files[split])} images can't be read: "
                f"{', '.join(bad[:5])}{more}; repair or remove them, or leave them out with "
                f"folder:{self.root}?skip=corrupt"
            )

    def read(self, file: Path) -> Any:
        """One image as PIL, in the mode of the folder's channels. Raises what Pillow raises."""
        from PIL import Image

        with Image.open(file) as image:
            return to_pil(image, self.facts.channels)

    def _resolution(self, split: str) -> int:
        """The common side of the images, from their headers."""
        from PIL import Image

        sizes = set()
        for file in self.files[split]:
            try:
                with Image.open(file) as image:
                    sizes.add(image.size)
            except Exception:  # named when the images are read
                continue
            if len(sizes) > 1 or image.width != image.height:
                raise ValueError(
                    f"folder:{self.root}: images are not squares of one size: give a resolution, such as 64"
                )
        return next(iter(sizes), (64, 64))[0]


def _images(folder: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(folder, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place) / name
