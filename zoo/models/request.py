"""What ``zoo sample`` asks of a model, and the files that tasks write: grids, an image a file, walks, images remade."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.images import open_picture
from zoo.files import Json, beside, remove_partials, sha256
from zoo.pictures import VIDEO, save, to_picture, write_grid, write_walk

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MANIFEST = "samples.json"
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def no_bar(chunks: Iterable[Any], total: int) -> Iterator[Any]:
    """The chunks, without a progress bar."""
    yield from chunks


@dataclass
class Request:
    """The options of ``zoo sample``, by their names there; ``source`` is --input.

    ``name``: the weights as the user named them. ``weights``: their file. ``tell``: called with a line for the user.
    ``bar``: wraps an iterable of chunks, and their total length, to show progress. ``given``: the options that the user
    gave, at their default values too; None: those with other values.
    """

    name: str
    out: str
    weights: Path | None = None
    count: int = 16
    seed: int = 0
    y: int | str | list[int | str] | None = None
    classes: bool = False
    interpolate: int | None = None
    codes: dict[str, float] | None = None
    traverse: str | None = None
    truncation: float | None = None
    source: str | None = None
    text: str | None = None
    to: str | None = None
    chunk: int | None = None
    scale: int = 1
    tell: Callable[[str], None] = print
    bar: Callable[[Iterable[Any], int], Iterator[Any]] = no_bar
    given: frozenset[str] | None = None

    @property
    def path(self) -> Path:
        return Path(self.out)

    @property
    def folder(self) -> bool:
        """Whether a file an image is asked for."""
        return self.out.endswith(("/", os.sep)) or self.path.is_dir() or not self.path.suffix

    @property
    def suffix(self) -> str:
        return "" if self.folder else self.path.suffix.lower()

    def is_given(self, option: str) -> bool:
        """Whether the user gave an option, by its name here."""
        if self.given is not None:
            return option in self.given
        field = next(f for f in dataclasses.fields(self) if f.name == option)
        return bool(getattr(self, option) != field.default)

    def only(self, *options: str, mode: str = "") -> None:
        """Raises ValueError for any option beside these and --out that was given, since the model does not use it.
        ``mode``: the option that decides what is made, if one does."""
        allowed = {"name", "out", "weights", "tell", "bar", "given", mode, *options}
        for field in dataclasses.fields(self):
            if field.name not in allowed and self.is_given(field.name):
                option = option_of(field.name)
                beside = f" with {option_of(mode)}" if mode else ""
                raise ValueError(f"{option}: '{self.name}' does not use it{beside}; leave {option} out")

    def check_out(self, expected: Sequence[str], what: str, folder: bool = False) -> None:
        """Raises ValueError unless --out is a file of one of these endings, or, with ``folder``, a folder."""
        if self.suffix not in expected and not (folder and self.folder):
            other = ", or name DIR/" if folder else ""
            raise ValueError(f"--out {self.out}: {what} is written as {' or '.join(expected)}{other}")

    # Files ------------------------------------------------------------------------------------------------------------

    def write_grid(self, images: Tensor, columns: int) -> None:
        """One PNG."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_grid(self.path, images.cpu(), columns, self.scale)

    def write_walk(self, chunks: Iterable[Tensor]) -> None:
        """A closed walk of 20 images a second, a GIF or an MP4."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_walk(self.path, (to_picture(image, self.scale) for images in chunks for image in images))

    def write_files(self, draw: Callable[[Sequence[int]], Iterable[Tensor]], seeds: Sequence[int], facts: Json) -> None:
        """One PNG for each seed that has none yet. ``draw(places)``: the images of some places of ``seeds``, in chunks.
        ``facts``: what the images depend on, beside the weights. Raises ValueError if the folder has other files."""
        assert self.weights is not None
        write_files(self.path, draw, seeds, {"weights": sha256(self.weights), **facts}, self.bar, self.scale)

    def remake(self, make: Callable[[Image], Tensor], fixed: int | None, multiple: int = 4) -> None:
        """Of the image --input an image, or of a folder of images a folder of PNGs of the same names. ``fixed``: the
        side that the network takes; None if it takes all sides that are a multiple of ``multiple``."""
        assert self.source is not None
        source, out = Path(self.source), self.path
        if not source.exists():
            raise ValueError(f"--input {source}: no such file or folder")
        sources = [source]
        if source.is_dir():
            sources = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGES)
            if not sources:
                raise ValueError(f"--input {source}: has no images ({', '.join(IMAGES)})")
            if not self.folder:
                raise ValueError(f"--out {out}: must be a folder (DIR/), as --input is one")
        elif not self.folder and self.suffix not in IMAGES:
            raise ValueError(f"--out {out}: must end in one of {', '.join(IMAGES)}")
        for path in sources:  # a mistake in any is reported before anything is written
            read_picture(path)
        (out if self.folder else out.parent).mkdir(parents=True, exist_ok=True)
        for paths in self.bar(([p] for p in sources), len(sources)):
            for path in paths:
                image = make(fit(fixed, read_picture(path), path, self.tell, multiple))
                save(to_picture(image, self.scale), out / f"{path.stem}.png" if self.folder else out)


def option_of(field: str) -> str:
    """The option of ``zoo sample`` for a field of a Request."""
    return {"source": "--input", "count": "-n"}.get(field, f"--{field}")


def write_files(
    out: Path,
    draw: Callable[[Sequence[int]], Iterable[Tensor]],
    seeds: Sequence[int],
    manifest: Json,
    bar: Callable[[Iterable[Any], int], Iterator[Any]] = no_bar,
    scale: int = 1,
) -> None:
    """As :meth:`Request.write_files`. ``manifest``: all that the images depend on."""
    path = out / MANIFEST
    manifest |= {"scale": scale} if scale != 1 else {}
    if out.is_dir():
        remove_partials(out, deep=False)
    if path.exists():
        if read_manifest(path) != manifest:
            raise ValueError(f"--out {out}: has samples of other weights or settings; choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: exists and has other files; choose another folder")
    missing = [i for i, s in enumerate(seeds) if not (out / f"{s:06d}.png").exists()]
    if not missing:
        return
    chunks = iter(draw(missing))
    first = next(chunks)  # a mistake is reported before the folder is made
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with beside(path) as partial:
            partial.write_text(json.dumps(manifest))
    names = iter(f"{seeds[i]:06d}.png" for i in missing)
    for images in bar(itertools.chain((first,), chunks), len(missing)):
        for image in images:
            save(to_picture(image, scale), out / next(names))


def read_manifest(path: Path) -> object:
    """The content of a folder's samples.json; None if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def walk_endings() -> tuple[str, ...]:
    """The endings of the files that a walk can be written to."""
    return (".gif", *VIDEO)


def read_picture(path: Path) -> Image:
    """An image file. Raises ValueError if it cannot be read."""
    from PIL import Image

    try:
        with open_picture(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"--input {path}: not a readable image ({error}); repair or remove it") from None


def fit(fixed: int | None, image: Image, path: Path, tell: Callable[[str], None], multiple: int = 4) -> Image:
    """The image at the nearest size that the network takes; a change is told."""
    from PIL import Image

    width, height = (max(multiple, round(side / multiple) * multiple) for side in image.size)
    size = (fixed, fixed) if fixed else (width, height)
    if size == image.size:
        return image
    tell(f"{path}: {image.width}x{image.height} resized to {size[0]}x{size[1]}")
    return image.resize(size, Image.Resampling.LANCZOS)
