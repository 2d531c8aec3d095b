"""Publishing: trained weights into a weights folder with its index, or to the Hugging Face hub."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import hub
from zoo.files import Json, beside, sha256, tensor_hash
from zoo.tensor_file import NotFinite

if TYPE_CHECKING:
    from zoo.models import Model

MAX_DIFFERENCE = 2 / 255  # of a pixel in [0, 1]; images that differ by less look the same


def largest_difference(model: Model, path: str | Path) -> float:
    """The largest difference of an output, in [0, 1], between ``model`` and the weights file ``path``, on the inputs of
    the task's probe."""
    other = hub.read_model(path, str(model.device))
    return max((a - b).abs().max().item() for a, b in zip(model.probe(), other.probe(), strict=True))


def publish(source: str | Path, to: str | Path, name: str | None = None, below_bar: str | None = None) -> Json:
    """Put trained weights in a weights folder (with its index) or on the hub (``hf:OWNER/NAME``).

    In half precision if no pixel differs by 2/255 or more, else in float32. Returns the entry of the index, with
    ``difference`` (the largest of a pixel; None for points and for values too large for 16 bits, which stay in float32)
    and ``path``.

    Args:
        source: as for :func:`zoo.load`.
        to: the folder or repository.
        name: by default the recipe's.
        below_bar: the reason if the scores do not reach the bar of the model's task. It is written into the Card and
            the index, and marks the weights in every table.

    Raises ValueError as :func:`zoo.load`; OSError if the weights cannot be written or uploaded.
    """
    model = hub.load(source)
    model.card["below_bar"] = below_bar or model.card.get("below_bar")
    name = name or model.card.get("name") or Path(source).stem
    with tempfile.TemporaryDirectory(prefix="zoo-publish-") as scratch:
        upload = str(to).startswith("hf:")
        folder = Path(scratch) if upload else Path(to)
        path = folder / (hub.WEIGHTS if upload else f"{name}.safetensors")
        half, difference = _write(model, path)
        entry = {
            "file": path.name,
            "sha256": sha256(path),
            "tensors": tensor_hash(path),
            "bytes": path.stat().st_size,
            "recipe": name,
            "kind": model.spec["kind"],
            "dataset": model.card.get("dataset"),
            "license": hub.data_license(model.card),
            "below_bar": model.card["below_bar"],
            "images": model.card.get("images"),
            "half": half,
        }
        if upload:
            _upload(str(to), path)
        else:
            index = json.dumps({**hub.index(folder), name: entry}, indent=2, sort_keys=True) + "\n"
            with beside(folder / "index.json") as partial:
                partial.write_text(index)
    return {**entry, "difference": difference, "path": str(to) if upload else str(path)}


def _write(model: Model, path: Path) -> tuple[bool, float | None]:
    """Write the weights file. Returns whether it is in half precision, and by how much its images differ then."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}.draft.safetensors")
    half, difference = False, None
    try:
        if model.resolution:
            with contextlib.suppress(NotFinite):  # a value that is too large for 16 bits
                hub.save_weights(draft, model.networks, model.card, half=True)
                difference = largest_difference(model, draft)
                half = difference < MAX_DIFFERENCE
        if not half:
            hub.save_weights(draft, model.networks, model.card)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return half, difference


def _upload(name: str, path: Path) -> None:
    client, repository = hub.repository(name)
    try:
        client.create_repo(repository, exist_ok=True)
        client.upload_file(path_or_fileobj=str(path), path_in_repo=hub.WEIGHTS, repo_id=repository)
    except Exception as error:  # the HTTP client raises many kinds
        raise OSError(f"'{name}': not published ({hub.one_line(error)})") from None
