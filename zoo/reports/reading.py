"""The contents of a run's folder; the run may be finished, still training, or killed at any instant.

Only ``recipe.json`` must be whole: a line of the log or a grid may be incomplete, the weights missing. Whatever cannot
be read is counted and reported.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoo import hub
from zoo.data.images import open_picture
from zoo.engine.extend import recipe_of
from zoo.engine.run_folder import LOG, SAMPLES, WEIGHTS, RunFolder
from zoo.files import Json
from zoo.recipe import encode
from zoo.reports.values import number
from zoo.tensor_file import check_depth

if TYPE_CHECKING:
    from PIL.Image import Image

Item = TypeVar("Item")

CLOCK = ("images", "round", "stage", "seconds", "images_per_second")  # the other numbers of a line are curves
SMALLEST = 1e-290  # of the numbers of a line; a scale of smaller ones would be beyond floating point
GRIDS = 40  # grids on a page at most
GRID_BYTES = 6_500_000  # of all grids together, before base64 makes four bytes of three


@dataclass
class Log:
    """``lines`` in the order of the images seen, each with ``images``, ``stage`` and its finite numbers; scores have
    the key ``scores/NAME``. ``notices``: (images, text) of warnings and of a stop by a value that is not finite
    (``diverged``: whether there was one). ``unreadable``: the number of lines that could not be read."""

    lines: list[Json] = field(default_factory=list)
    notices: list[tuple[float, str]] = field(default_factory=list)
    diverged: bool = False
    unreadable: int = 0

    @property
    def keys(self) -> list[str]:
        """The logged keys except ``CLOCK``, in the order of their first appearance."""
        return list(dict.fromkeys(k for line in self.lines for k in line if k not in CLOCK))

    def last(self, key: str) -> float | None:
        return next((line[key] for line in reversed(self.lines) if key in line), None)


@dataclass
class Grid:
    """One grid as a data URI. ``images``: the images seen then. ``exact``: whether the pixels are those of the file."""

    images: int
    uri: str
    size: tuple[int, int]
    exact: bool


@dataclass
class Run:
    """The contents of a run's folder. ``facts``: recipe.json. ``modified``: when the log was last written, in seconds
    since 1970. ``card``: the header of the weights file (:func:`zoo.hub.read_header`), or the reason why there is none.
    ``grid_count``: the number of grids in the folder; ``unreadable``: of those that cannot be read."""

    path: Path
    facts: Json
    log: Log
    modified: float | None
    grids: list[Grid]
    grid_count: int
    unreadable: int
    card: Json | str

    @property
    def recipe(self) -> Json:
        return self.facts["recipe"]

    @property
    def name(self) -> str:
        """The recipe's name, ``model-dataset[-variant]``."""
        model, dataset, variant = (str(self.recipe.get(k) or "") for k in ("model", "dataset", "variant"))
        return "-".join(filter(None, (model, dataset.partition(":")[0], variant)))

    @property
    def budget(self) -> int:
        """Real images of all stages."""
        return sum(stage["images"] for stage in self.recipe["stages"])

    @property
    def images(self) -> int:
        """Real images seen, by the log; without a line of it, by the Card."""
        by_log = self.log.last("images")
        by_card = 0 if isinstance(self.card, str) else number(self.card["card"].get("images")) or 0
        return int(by_card if by_log is None else by_log)


def read(path: str | Path) -> Run:
    """The run in the folder ``path``. Raises ValueError if it is not the folder of a run."""
    folder = RunFolder(path)
    facts = {**folder.facts(), "recipe": encode(recipe_of(folder))}
    try:
        check_depth(facts)
    except ValueError as error:
        raise folder.wrong(error) from None
    log = folder.path / LOG
    paths = sorted(p for p in (folder.path / SAMPLES).glob("*.png") if re.fullmatch(r"[0-9]+", p.stem))
    grids, unreadable = read_grids(paths)
    try:
        card: Json | str = hub.read_header(folder.path / WEIGHTS)
    except ValueError as error:
        card = str(error)
    modified = log.stat().st_mtime if log.exists() else None
    return Run(folder.path, facts, read_log(log), modified, grids, len(paths), unreadable, card)


def read_log(path: Path) -> Log:
    """Read log.jsonl. The last line may be incomplete, or the file missing."""
    log = Log()
    if not path.exists():
        return log
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            images = number(line["images"])
        except (ValueError, KeyError, TypeError, RecursionError):
            images = None
        if images is None:
            log.unreadable += 1
            continue
        log.notices += [(images, str(line[k])) for k in ("warning", "stopped") if k in line]
        log.diverged |= "stopped" in line
        scores = line.get("scores")
        if isinstance(scores, Mapping):
            line.update({f"scores/{k}": v for k, v in scores.items()})
        numbers = {k: v if abs(v) > SMALLEST else 0 for k, v in line.items() if number(v) is not None}
        log.lines.append({"stage": 0, **numbers})
    return log


# Grids ----------------------------------------------------------------------------------------------------------------


def thin(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` of the items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def read_grids(paths: Sequence[Path]) -> tuple[list[Grid], int]:
    """At most ``GRIDS`` of the grids, together at most ``GRID_BYTES``, and the number of those that cannot be read."""
    from PIL import Image

    grids, unreadable, selected = [], 0, thin(paths, GRIDS)
    for path in selected:
        try:
            content = path.read_bytes()
            with open_picture(io.BytesIO(content)) as image:
                image.load()
                data, form, exact = pack(image, content, GRID_BYTES // len(selected))
                size = image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            unreadable += 1
            continue
        uri = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
        grids.append(Grid(int(path.stem), uri, size, exact))
    return grids, unreadable


def pack(image: Image, content: bytes, most: int) -> tuple[bytes, str, bool]:
    """A picture in at most ``most`` bytes (a thousand or more): (bytes, format, whether all pixels are equal).

    ``content``: its PNG file. Lossless if it fits, else in falling quality, else smaller.
    """
    from PIL import features
    from PIL.Image import Resampling

    webp = features.check("webp")
    form = "webp" if webp else "jpeg"
    image = image.convert("RGB")

    def encode(image: Image, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, format=form, **options)
        return file.getvalue()

    if len(content) <= 2 * most:  # lossless WebP is seldom below half a PNG
        data = encode(image, lossless=True) if webp else content
        if len(data) <= min(most, len(content)):
            return data, form if webp else "png", True
        if len(content) <= most:
            return content, "png", True
    while True:
        for quality in (90, 75, 50):
            data = encode(image, quality=quality)
            if len(data) <= most or image.size == (1, 1):
                return data, form, False
        shrink = math.sqrt(0.9 * most / len(data))
        width, height = (max(1, int(side * shrink)) for side in image.size)
        image = image.resize((width, height), Resampling.LANCZOS)
