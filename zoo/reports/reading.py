"""What a run's folder says, of a run that is finished, going on, or was killed at any instant.

Nothing here trusts the files further than that ``recipe.json`` is the zoo's: a line of the log may be torn, a grid cut
short, the weights not written yet. What could not be read is counted and told.
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
from typing import Any

from zoo import hub
from zoo.engine.run_folder import LOG, SAMPLES, WEIGHTS, RunFolder

CLOCK = ("images", "round", "stage", "seconds", "images_per_second")  # the other numbers of a line are curves
GRIDS = 40  # grids on a page at most
GRID_BYTES = 6_500_000  # of all grids together, before base64 makes four bytes of three


@dataclass
class Log:
    """``lines`` in the order of the images seen, each with ``images``, ``stage`` and the finite numbers that it holds;
    scores are called ``scores/NAME``. ``notices``: (images, text) of warnings and of a stop by a value that is not finite
    (``broken``: whether there was one). ``torn``: lines that are none."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    notices: list[tuple[float, str]] = field(default_factory=list)
    broken: bool = False
    torn: int = 0

    @property
    def keys(self) -> list[str]:
        """What is logged beside the clock, in the order of its first appearance."""
        return list(dict.fromkeys(k for line in self.lines for k in line if k not in CLOCK))

    def last(self, key: str) -> float | None:
        return next((line[key] for line in reversed(self.lines) if key in line), None)


@dataclass
class Grid:
    """One grid as a data URI. ``images``: how many the run had seen. ``exact``: as drawn, pixel for pixel."""

    images: int
    uri: str
    size: tuple[int, int]
    exact: bool


@dataclass
class Run:
    """A run's folder as read. ``card``: the header of its weights file (:func:`zoo.hub.read_header`), or the reason why
    there is none. ``draw``: how many grids lie in the folder; ``broken``: how many of those can't be read."""

    path: Path
    facts: dict[str, Any]
    log: Log
    written: float | None
    grids: list[Grid]
    draw: int
    broken: int
    card: dict[str, Any] | str

    @property
    def recipe(self) -> dict[str, Any]:
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
    def seen(self) -> int:
        """Real images that the log knows of; without a line, those of the weights."""
        by_log = self.log.last("images")
        by_card = 0 if isinstance(self.card, str) else number(self.card["card"].get("images")) or 0
        return int(by_card if by_log is None else by_log)


def read(path: str | Path) -> Run:
    """The run in the folder ``path``. ValueError where it is no run's."""
    folder = RunFolder(path)
    facts = folder.facts()
    try:
        sum(stage["images"] for stage in facts["recipe"]["stages"])
    except (KeyError, TypeError):
        raise ValueError(f"run '{path}': its recipe.json holds no recipe; is it the folder of a run?") from None
    log = folder.path / LOG
    draw = sorted(p for p in (folder.path / SAMPLES).glob("*.png") if re.fullmatch(r"[0-9]+", p.stem))
    grids, broken = read_grids(draw)
    try:
        card: dict[str, Any] | str = hub.read_header(folder.path / WEIGHTS)
    except ValueError as error:
        card = str(error)
    written = log.stat().st_mtime if log.exists() else None
    return Run(folder.path, facts, read_log(log), written, grids, len(draw), broken, card)


def number(value: Any) -> float | None:
    """A finite number as it is; None for anything else."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return value if fits else None


def read_log(path: Path) -> Log:
    """log.jsonl. The last line may be torn, or the file not there yet."""
    log = Log()
    if not path.exists():
        return log
    for written in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(written)
            images = number(line["images"])
        except (ValueError, KeyError, TypeError, RecursionError):
            images = None
        if images is None:
            log.torn += 1
            continue
        log.notices += [(images, str(line[k])) for k in ("warning", "stopped") if k in line]
        log.broken |= "stopped" in line
        scores = line.get("scores")
        if isinstance(scores, Mapping):
            line.update({f"scores/{k}": v for k, v in scores.items()})
        held = {k: v for k, v in line.items() if number(v) is not None}
        log.lines.append({"stage": 0, **held})
    return log


# Grids ----------------------------------------------------------------------------------------------------------------


def thin(items: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of the items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def read_grids(paths: Sequence[Path]) -> tuple[list[Grid], int]:
    """At most ``GRIDS`` of the grids, together at most ``GRID_BYTES``, and how many could not be read."""
    from PIL import Image

    grids, broken, chosen = [], 0, thin(paths, GRIDS)
    for path in chosen:
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                packed, form, exact = pack(image, content, GRID_BYTES // len(chosen))
                size = image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken += 1
            continue
        uri = f"data:image/{form};base64,{base64.b64encode(packed).decode()}"
        grids.append(Grid(int(path.stem), uri, size, exact))
    return grids, broken


def pack(image: Any, content: bytes, most: int) -> tuple[bytes, str, bool]:
    """A picture in at most ``most`` bytes, a thousand or more: (bytes, format, whether each pixel is kept). ``content``: its file, a PNG.
    Lossless first, then in falling quality, then smaller."""
    from PIL import Image, features

    webp = features.check("webp")
    form = "webp" if webp else "jpeg"
    image = image.convert("RGB")

    def written(image: Any, **how: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, format=form, **how)
        return file.getvalue()

    if len(content) <= 2 * most:  # lossless WebP is seldom below half a PNG
        packed = written(image, lossless=True) if webp else content
        if len(packed) <= min(most, len(content)):
            return packed, form if webp else "png", True
        if len(content) <= most:
            return content, "png", True
    while True:
        for quality in (90, 75, 50):
            packed = written(image, quality=quality)
            if len(packed) <= most or image.size == (1, 1):
                return packed, form, False
        shrink = math.sqrt(0.9 * most / len(packed))
        width, height = (max(1, int(side * shrink)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
