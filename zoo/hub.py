"""Weights by name: files with their Card, shipped ones and those on the Hugging Face hub.

A weights file is one safetensors file: the tensors of the networks that a Model ships (``G.layers.0.weight``), and in
the header, under ``card``, the Card as JSON: ``model`` (the model spec), ``name`` (the recipe's), ``recipe``, data set
and license, images seen, metrics, versions. ``zoo/weights/index.json`` lists the shipped files: recipe, size, SHA-256
of the file (``sha256``) and of its tensors (``tensors``).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from zoo import overrides, settings
from zoo.files import Json, beside, sha256
from zoo.recipe import Pretrained, decode
from zoo.registry import nearest

if TYPE_CHECKING:
    from torch import nn

    from zoo.model import Model
    from zoo.pretrained import Frozen

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS = "weights.safetensors"  # a run's weights; the file's name in a hub repository too
MAX_HEADER_BYTES = 100 << 20


# Files --------------------------------------------------------------------------------------------------------------


def save_weights(path: str | Path, networks: Mapping[str, nn.Module], card: Json, half: bool = False) -> None:
    """Write networks and Card as one weights file, atomically.

    ``half``: floating-point tensors in 16 bits. Raises OSError if the disk does not take it, and leaves nothing.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            value = value.detach().cpu()
            value = value.half() if half and value.is_floating_point() else value
            tensors[f"{name}.{key}"] = value.clone(memory_format=torch.contiguous_format)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        partial.write_bytes(save(tensors, metadata={"card": json.dumps(card)}))


def read_header(path: str | Path) -> Json:
    """The header of a weights file, without torch and without reading a tensor: ``{"card", "parameters", "bytes"}``;
    ``parameters``: the number of elements by tensor name. Raises ValueError if the file is truncated or not one of the
    zoo's."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights '{path}': no such file")
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, MAX_HEADER_BYTES):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        card = json.loads(header.pop("__metadata__")["card"])
        if not isinstance(card, dict) or "model" not in card:
            raise ValueError("its Card has no model")
        elements = {k: math.prod(v["shape"]) for k, v in header.items()}
        end = max((v["data_offsets"][1] for v in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        reason = "no Card in its header" if isinstance(error, KeyError) else str(error) or "too short"
        raise ValueError(f"weights '{path}': truncated or not a weights file of the zoo ({reason})") from None
    if size != 8 + length + end:
        raise ValueError(f"weights '{path}': truncated, {size} of {8 + length + end} bytes; fetch or export it again")
    return {"card": card, "parameters": elements, "bytes": size}


def read_model(path: str | Path, device: str = "cpu") -> Model:
    """The Model in a weights file, in eval mode. Raises ValueError if the file is not a whole weights file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zoo.model import build_model
    from zoo.pretrained import attach

    card = read_header(path)["card"]
    try:
        declared = _pretrained_of(card)
        model = build_model(card["model"], card=card)
        model.load_state_dict(load_file(path))
        attach(model, card["model"], load_pretrained(declared))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"weights '{path}': {one_line(error)}") from None
    except RuntimeError as error:  # load_state_dict names the missing, unexpected and misshapen tensors
        reason = f"the tensors do not fit the networks of its Card ({one_line(error)})"
        raise ValueError(f"weights '{path}': {reason}") from None
    return model.to(device).eval().requires_grad_(False)


def load_pretrained(pretrained: Mapping[str, Pretrained]) -> dict[str, Frozen]:
    """Pretrained networks with their weights, by name. Raises ValueError, with the remedy, if they are not at hand."""
    from zoo import pretrained as networks

    shipped = index()
    return {
        name: networks.load(name, p, find(p.source) if p.source in shipped else None) for name, p in pretrained.items()
    }


def _pretrained_of(card: Json) -> dict[str, Pretrained]:
    """The pretrained networks that the Model of a Card needs. Raises ValueError if one is declared without a hash."""
    spec = card["model"]
    plain = spec.get("pretrained", {}) if isinstance(spec, dict) else {}
    if not isinstance(plain, dict):
        raise ValueError(f"pretrained={plain!r}: must be networks by name")
    try:
        declared: dict[str, Pretrained] = {name: decode(value) for name, value in plain.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"pretrained: its Card has no declaration of a network ({error})") from None
    for name, p in declared.items():
        if not isinstance(p, Pretrained):
            raise ValueError(f"pretrained.{name}: must be a Pretrained")
        overrides.check_pretrained(name, p)
        if not p.hash:
            raise ValueError(f"pretrained.{name}: must have the hash of its weights")
    return declared


def one_line(error: Exception) -> str:
    """An error's message in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


# Names --------------------------------------------------------------------------------------------------------------


def index(folder: str | Path | None = None) -> dict[str, Json]:
    """The index of a weights folder: name -> ``{"file", "sha256", "tensors", "bytes", "recipe", "half", ...}``."""
    path = Path(folder or SHIPPED) / "index.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def find(name_or_path: str | Path) -> Path:
    """The weights file that a name, a ``.safetensors`` file, a run folder or ``hf:OWNER/NAME`` means; a shipped file is
    compared with the index. Raises ValueError if there is none; OSError if the hub does not answer."""
    name = str(name_or_path)
    if name.startswith("hf:"):
        return _download(name)
    shipped = index()
    if name in shipped:
        path = SHIPPED / shipped[name]["file"]
        if not path.is_file():
            raise ValueError(f"weights '{name}': {path} is missing; install the package again")
        if sha256(path) != shipped[name]["sha256"]:
            reason = f"{path} is not the file of the index (sha256)"
            raise ValueError(f"weights '{name}': {reason}; install the package again")
        return path
    path = Path(name)
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        if (path / "recipe.json").is_file():
            raise ValueError(f"run '{name}': has no {WEIGHTS} yet; zoo resume {name} finishes it")
        expected = "a run's folder, a weights file or a name (zoo list weights)"
        raise ValueError(f"folder '{name}': has no {WEIGHTS}; must be {expected}")
    if path.is_file():
        return path
    if path.suffix == ".safetensors":
        raise ValueError(f"weights '{name}': no such file")
    recipes = settings.names()
    if name in recipes:
        entry = settings.RECIPES[name]
        variant = f" --variant {entry['variant']}" if entry["variant"] else ""
        command = f"zoo train {entry['model']} --dataset {entry['dataset']}{variant}"
        raise ValueError(f"weights '{name}' are not published; this trains them: {command}")
    raise ValueError(f"unknown weights '{name}'{nearest(name, [*shipped, *recipes])} (zoo list weights)")


def load(name_or_path: str | Path, device: str = "cpu") -> Model:
    """A trained Model in eval mode, with its Card.

    ``name_or_path``: the name of shipped weights, a ``.safetensors`` file, a run's folder, or ``hf:OWNER/NAME``.
    Raises ValueError if there is none of that name, or the file is truncated, changed or not the zoo's.
    """
    path = find(name_or_path)
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = f"not available here ({one_line(error)})"
        raise ValueError(f"device='{device}': {reason}; must be cpu, cuda or mps") from None
    return read_model(path, device)


def repository(name: str) -> tuple[ModuleType, str]:
    """huggingface_hub and the repository that ``hf:OWNER/NAME`` names. Raises ValueError if the name has another form
    or the package is missing."""
    path = name.removeprefix("hf:")
    if path.count("/") != 1 or not all(path.split("/")):
        raise ValueError(f"'{name}': must be hf:OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(f"'{name}': needs the package huggingface_hub (pip install huggingface_hub)") from None
    return huggingface_hub, path


def _download(name: str) -> Path:
    client, path = repository(name)
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(client.hf_hub_download(path, WEIGHTS, library_name="gan-zoo", etag_timeout=10))
    except RepositoryNotFoundError:
        raise ValueError(f"'{name}': no such repository on the hub, or not a public one") from None
    except (EntryNotFoundError, HFValidationError) as error:
        if isinstance(error, OSError):  # the hub did not answer and nothing is cached
            raise OSError(f"'{name}': the hub does not answer ({one_line(error)})") from None
        reason = f"has no {WEIGHTS}, so it is not one of the zoo's"
        raise ValueError(f"'{name}': {reason} ({one_line(error)})") from None
    except Exception as error:  # the HTTP client raises many kinds
        raise OSError(f"'{name}': the hub does not answer ({one_line(error)})") from None
