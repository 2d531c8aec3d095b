"""Weights by name: files with their Card, shipped ones and those on the Hugging Face hub.

A weights file is one safetensors file: the tensors of the networks a Model ships (``G.layers.0.weight``), and in the
header, under ``card``, the Card as JSON: ``model`` (the model spec), ``name`` (the recipe's), ``recipe``, data set and
license, images seen, metrics, versions. ``zoo/weights/index.json`` names the shipped files, their recipe, size and sha256.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import settings
from zoo.files import beside, hash_tensors, sha256
from zoo.registry import nearest

if TYPE_CHECKING:
    from torch import nn

    from zoo.model import Model

SHIPPED = Path(__file__).parent / "weights"
EXPORTED = "weights.safetensors"  # a run folder's finished weights; the file's name in a hub repository too
SAME = 2 / 255  # images that differ by less look the same


# Files --------------------------------------------------------------------------------------------------------------


def save_weights(
    path: str | Path, networks: Mapping[str, nn.Module], card: Mapping[str, Any], half: bool = False
) -> None:
    """Write networks and Card as one weights file, atomically: beside the target, flushed, renamed.

    ``half``: floating-point tensors in 16 bits. OSError where the disk does not take it; nothing is left behind then.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            value = value.detach().cpu()
            value = value.half() if half and value.is_floating_point() else value
            tensors[f"{name}.{key}"] = value.clone(memory_format=torch.contiguous_format)
    _write(path, save(tensors, metadata={"card": json.dumps(card)}))


def _write(path: str | Path, content: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        partial.write_bytes(content)


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a weights file, without torch and without reading a tensor: ``{"card", "parameters", "bytes"}``,
    ``parameters`` by tensor name (number of elements). ValueError where the file is truncated or not one of the zoo's."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights '{path}': no such file")
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 100 << 20):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        card = json.loads(header.pop("__metadata__")["card"])
        if not isinstance(card, dict) or "model" not in card:
            raise ValueError("its Card has no model")
        elements = {k: math.prod(v["shape"]) for k, v in header.items()}
        ends = max((v["data_offsets"][1] for v in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        said = "no Card in its header" if isinstance(error, KeyError) else str(error) or "cut short"
        raise ValueError(f"weights '{path}': truncated or not a weights file of the zoo ({said})") from None
    if size != 8 + length + ends:
        raise ValueError(f"weights '{path}': truncated, {size} of {8 + length + ends} bytes; fetch or export it again")
    return {"card": card, "parameters": elements, "bytes": size}


def _read(path: Path, device: str) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zoo.model import build_model

    card = read_header(path)["card"]
    try:
        model = build_model(card["model"], card=card)
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"weights '{path}': {_line(error)}") from None
    except RuntimeError as error:  # load_state_dict names what is missing, too much or of another shape
        raise ValueError(
            f"weights '{path}': the tensors do not fit the networks of its Card ({_line(error)})"
        ) from None
    return model.to(device).eval().requires_grad_(False)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# Names --------------------------------------------------------------------------------------------------------------


def index(folder: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """What a weights folder holds: name -> ``{"file", "sha256", "bytes", "recipe", "half", ...}``."""
    path = Path(folder or SHIPPED) / "index.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def find(name_or_path: str | Path) -> Path:
    """The weights file that a name, a ``.safetensors`` file, a run folder or ``hf:OWNER/NAME`` means, checked against
    the index where it is shipped. ValueError where there is none; OSError where the hub does not answer."""
    name = str(name_or_path)
    if name.startswith("hf:"):
        return _from_hub(name)
    known = index()
    if name in known:
        path = SHIPPED / known[name]["file"]
        if not path.is_file():
            raise ValueError(f"weights '{name}': {path} is missing; install the package again")
        if sha256(path) != known[name]["sha256"]:
            raise ValueError(
                f"weights '{name}': {path} is not the file of the index (sha256); install the package again"
            )
        return path
    path = Path(name)
    if path.is_dir():
        if (path / EXPORTED).is_file():
            return path / EXPORTED
        held = f"holds no {EXPORTED}"
        if (path / "recipe.json").is_file():
            raise ValueError(f"run '{name}': {held} yet; zoo resume {name} finishes it")
        raise ValueError(f"folder '{name}': {held}; give a run's folder, a weights file or a name (zoo list weights)")
    if path.is_file():
        return path
    if path.suffix == ".safetensors":
        raise ValueError(f"weights '{name}': no such file")
    every = settings.names()
    if name in every:
        entry = settings.RECIPES[name]
        variant = f" --variant {entry['variant']}" if entry["variant"] else ""
        command = f"zoo train {entry['model']} --dataset {entry['dataset']}{variant}"
        raise ValueError(f"weights '{name}' are not published; this trains them: {command}")
    raise ValueError(f"unknown weights '{name}'{nearest(name, [*known, *every])} (zoo list weights)")


def load(name_or_path: str | Path, device: str = "cpu") -> Model:
    """A trained Model in eval mode, with its Card.

    ``name_or_path``: the name of shipped weights, a ``.safetensors`` file, a run's folder, or ``hf:OWNER/NAME``.
    ValueError where there is none of that name, or the file is truncated, changed or not the zoo's.
    """
    path = find(name_or_path)
    import torch

    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device='{device}': not available here ({_line(error)}); choose cpu, cuda or mps") from None
    return _read(path, device)


# Publishing ---------------------------------------------------------------------------------------------------------


def looks_the_same(model: Model, path: str | Path) -> float:
    """The largest difference of a pixel, in [0, 1], between the images of ``model`` and of the weights file ``path``; of a
    probability, where it only classifies."""
    import torch

    other = _read(Path(path), str(model.device))
    if model.verb != "sample":
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(8, model.channels, 4, 4, generator=generator)
        side = model.resolution
        x = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
        if model.verb == "classify":
            return (model.classify(x) - other.classify(x)).abs().max().item()
        return max((model.translate(x, to) - other.translate(x, to)).abs().max().item() for to in model.to_network)
    difference = (model.preview({})[0] - other.preview({})[0]).abs().max()
    if hasattr(model, "reconstruct"):
        x = model.sample(64)
        difference = torch.maximum(difference, (model.reconstruct(x) - other.reconstruct(x)).abs().max())
    return difference.item()


def publish(source: str | Path, to: str | Path, name: str | None = None) -> dict[str, Any]:
    """Put trained weights where others find them: a weights folder (with its index), or ``hf:OWNER/NAME``.

    In half precision if the images stay the same to the eye (no pixel differs by 2/255 or more), else in float32.
    ``source``: as for :func:`load`. ``name``: the recipe's unless given. Returns what the index says, with
    ``difference`` (the largest of a pixel; None for points, which stay in float32) and ``path``.
    """
    model = load(source)
    name = name or model.card.get("name") or Path(source).stem
    hub = str(to).startswith("hf:")
    folder = Path(_scratch()) if hub else Path(to)
    path = folder / (EXPORTED if hub else f"{name}.safetensors")
    draft = folder / f".{name}.{os.getpid()}.draft.safetensors"
    try:
        half, difference = False, None
        if model.resolution:
            save_weights(draft, model.networks, model.card, half=True)
            difference = looks_the_same(model, draft)
            half = difference < SAME
        if not half:
            save_weights(draft, model.networks, model.card)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    entry = {
        "file": path.name,
        "sha256": sha256(path),
        "tensors": hash_tensors(path),
        "bytes": path.stat().st_size,
        "recipe": name,
        "kind": model.spec["kind"],
        "dataset": model.card.get("dataset"),
        "images": model.card.get("images"),
        "half": half,
    }
    if hub:
        try:
            _to_hub(str(to), path)
        finally:
            path.unlink()
            folder.rmdir()
    else:
        _write(
            folder / "index.json",
            (json.dumps({**index(folder), name: entry}, indent=2, sort_keys=True) + "\n").encode(),
        )
    return {**entry, "difference": difference, "path": str(to) if hub else str(path)}


def _scratch() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="zoo-publish-")


def _hub(name: str) -> tuple[Any, str]:
    """huggingface_hub and the repository that ``hf:OWNER/NAME`` names."""
    repository = name.removeprefix("hf:")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"'{name}': must be hf:OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(f"'{name}': needs the package huggingface_hub (pip install huggingface_hub)") from None
    return huggingface_hub, repository


def _from_hub(name: str) -> Path:
    hub, repository = _hub(name)
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(hub.hf_hub_download(repository, EXPORTED, library_name="gan-zoo", etag_timeout=10))
    except RepositoryNotFoundError:
        raise ValueError(f"'{name}': no such repository on the hub, or not a public one") from None
    except (EntryNotFoundError, HFValidationError) as error:
        if isinstance(error, OSError):  # the hub did not answer and nothing is cached
            raise OSError(f"'{name}': the hub does not answer ({_line(error)})") from None
        raise ValueError(f"'{name}': holds no {EXPORTED}, so it is none of the zoo's ({_line(error)})") from None
    except Exception as error:  # the http client's many kinds
        raise OSError(f"'{name}': the hub does not answer ({_line(error)})") from None


def _to_hub(name: str, path: Path) -> None:
    hub, repository = _hub(name)
    try:
        hub.create_repo(repository, exist_ok=True)
        hub.upload_file(path_or_fileobj=str(path), path_in_repo=EXPORTED, repo_id=repository)
    except Exception as error:  # the http client's many kinds
        raise OSError(f"'{name}': not published ({_line(error)})") from None
