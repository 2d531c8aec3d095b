"""Publishing: trained weights into a weights folder with its index, or to the Hugging Face hub."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zoo import hub
from zoo.data.store import home
from zoo.files import Json, beside, check_name, check_place, folder_lock, remove_partials, scratch, sha256, tensor_hash
from zoo.tensor_file import NotFinite

if TYPE_CHECKING:
    from zoo.models import Model

MAX_DIFFERENCE = 2 / 255  # of a value in [0, 1]; images that differ by less look the same
SHARE = 0.999  # of the values that must; the batch norm of a single image enlarges the rounding of a few


def difference(model: Model, path: str | Path, share: float = 1.0) -> float:
    """By how much the output of the weights file ``path`` differs from that of ``model``, on the inputs of the task's
    probe: the largest difference in [0, 1] among this share of the values, those that differ least."""
    other = hub.read_model(path, str(model.device))
    outputs = zip(model.probe(), other.probe(), strict=True)
    differences = torch.cat([(a - b).abs().flatten() for a, b in outputs])
    return differences.kthvalue(math.ceil(share * len(differences))).values.item()


def publish(
    source: str | Path,
    to: str | Path,
    name: str | None = None,
    below_bar: str | None = None,
    code: str | Path | None = None,
) -> Json:
    """Put trained weights in a weights folder (with its index) or on the hub (``hf:OWNER/NAME``).

    In half precision if 99.9 % of the values of images differ by less than 2/255, else in float32. Returns the entry of
    the index, with ``difference`` (the largest of these 99.9 %; None for points and for values too large for 16 bits,
    which stay in float32) and ``path``.

    Args:
        source: as for :func:`zoo.load`.
        to: the folder or repository.
        name: a plain file name, by default the recipe's; only for a folder.
        below_bar: the reason if the scores do not reach the bar of the model's task. It is written into the Card and
            the index, and marks the weights in every table.
        code: as for :func:`zoo.load`.

    Raises ValueError as :func:`zoo.load`, or if the name is not a plain file name; OSError if the weights cannot be
    written or uploaded.
    """
    upload = str(to).startswith("hf:")
    if upload:
        hub.repository(str(to))  # a wrong name is reported first
        if name is not None:
            raise ValueError(f"--name {name}: names weights in the index of a folder; a repository has its own name")
    else:
        check_place(to, f"--to {to}", folder=True)
    model = hub.load(source, code=code)
    model.card["below_bar"] = below_bar or model.card.get("below_bar")
    origin = "--name " if name is not None else f"weights '{source}': the name in its Card, "
    name = check_name(name if name is not None else model.card.get("name") or Path(source).stem, origin)
    if upload:
        place = home() / "upload"
        place.mkdir(parents=True, exist_ok=True)
        remove_partials(place)
        with scratch(place, name) as folder:
            path = folder / hub.WEIGHTS
            entry = _entry(model, name, path, *_write(model, path))
            _upload(str(to), path)
        return {**entry, "path": str(to)}
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):  # two that publish at once would lose an entry
        index = hub.index(folder)  # what cannot be read is reported before anything is written
        path = folder / f"{name}.safetensors"
        if path.exists() and path.samefile(hub.find(source)):
            raise ValueError(f"--to {to}: {path} is what is to be published, and would be written over; choose another "
                             "folder or --name")  # fmt: skip
        with scratch(folder, path.name) as drafts:
            draft = drafts / path.name
            entry = _entry(model, name, draft, *_write(model, draft))
            listed = {key: value for key, value in entry.items() if key != "difference"}
            with beside(folder / "index.json") as partial:
                partial.write_text(json.dumps({**index, name: listed}, indent=2, sort_keys=True) + "\n")
                os.replace(draft, path)  # last: until here an error leaves the old weights with the old index
    return {**entry, "path": str(path)}


def _entry(model: Model, name: str, path: Path, half: bool, difference: float | None) -> Json:
    """The entry of the index, and ``difference``."""
    return {
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
        "difference": difference,
    }


def _write(model: Model, path: Path) -> tuple[bool, float | None]:
    """Write the weights file. Returns whether it is in half precision, and by how much its images differ then."""
    half, largest = False, None
    if model.resolution:
        with contextlib.suppress(NotFinite):  # a value that is too large for 16 bits
            hub.save_weights(path, model.networks, model.card, half=True)
            largest = difference(model, path, SHARE)
            half = largest < MAX_DIFFERENCE
    if not half:
        hub.save_weights(path, model.networks, model.card)
    return half, largest


def _upload(name: str, path: Path) -> None:
    client, repository = hub.repository(name)
    try:
        client.create_repo(repository, exist_ok=True)
        client.upload_file(path_or_fileobj=str(path), path_in_repo=hub.WEIGHTS, repo_id=repository)
    except Exception as error:  # the HTTP client raises many kinds
        raise OSError(f"'{name}': not published ({hub.one_line(error)})") from None
