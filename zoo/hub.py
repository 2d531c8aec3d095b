"""Weights by name: files with their Card, shipped ones and those on the Hugging Face hub.

A weights file is one safetensors file: the tensors of the networks that a Model ships (``G.layers.0.weight``), and in
the header, under ``card``, the Card as JSON: ``model`` (the model spec), ``name`` (the recipe's), ``recipe``, data set
and license, images seen, metrics, versions, ``format``, and once it is published ``below_bar``: why its scores do not
reach the bar of its task, None if they do. Beside it, under ``checksum``, is the SHA-256 of the whole file
(:mod:`zoo.tensor_file`). ``zoo/weights/index.json`` lists the shipped files: recipe, size, SHA-256
of the file (``sha256``) and of its tensors (``tensors``).
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from zoo import overrides, own_code, settings, tensor_file
from zoo.checks import check_device, excerpt
from zoo.files import Json, beside, check_name, sha256, shell_word
from zoo.recipe import Pretrained, decode
from zoo.registry import nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from zoo.models import Model
    from zoo.pretrained import Frozen

SHIPPED = Path(__file__).parent / "weights"
FORMAT = 2  # of weights files; those of format 1 have no checksum
logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # a run's weights; the file's name in a hub repository too


# Files --------------------------------------------------------------------------------------------------------------


def save_weights(path: str | Path, networks: Mapping[str, nn.Module], card: Json, half: bool = False) -> None:
    """Write networks and Card as one weights file, atomically.

    ``half``: floating-point tensors in 16 bits. Raises :class:`zoo.tensor_file.NotFinite` if a tensor, as it would be
    written, is not finite; OSError if the disk does not take it. Then nothing is left, and an old file stays.
    """
    import torch

    tensors = {}
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            value = value.detach().cpu()
            value = value.half() if half and value.is_floating_point() else value
            tensors[f"{name}.{key}"] = value.clone(memory_format=torch.contiguous_format)
    tensor_file.check_finite(tensors, f"weights '{path}'")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        tensor_file.write(partial, tensors, {"card": json.dumps({**card, "format": FORMAT}, allow_nan=False)})


def read_header(path: str | Path) -> Json:
    """The header of a weights file, without torch and without reading a tensor: ``{"card", "parameters", "bytes"}``;
    ``parameters``: the number of elements by tensor name. Raises ValueError if the file is truncated or not one of the
    zoo's."""
    header, card = _open(path)
    elements = {name: entry.elements for name, entry in header.tensors.items()}
    return {"card": card, "parameters": elements, "bytes": header.size}


def _open(path: str | Path) -> tuple[tensor_file.Header, Json]:
    """Header and Card of a weights file. Raises ValueError as :func:`read_header`."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights '{path}': no such file")
    try:
        header = tensor_file.read_header(path)
        if "card" not in header.metadata:
            raise ValueError("no Card in its header")
        card = tensor_file.parse_json(header.metadata["card"])
        if "model" not in card:
            raise ValueError("its Card has no model")
        for key in ("dataset", "recipe"):
            if not isinstance(card.get(key, {}), dict):
                raise ValueError(f"its Card's {key} must be an object, got {excerpt(card[key])}")
        _check_data(card)
        if tensor_file.CHECKSUM not in header.metadata:
            raise ValueError("it has no checksum: an earlier version of the zoo wrote it")
    except ValueError as error:
        reason = f"truncated or not a weights file of the zoo ({one_line(error)})"
        raise ValueError(f"weights '{path}': {reason}; fetch or export it again") from None
    return header, card


def _check_data(card: Json) -> None:
    """Raises ValueError unless the data sets of a Card have names and licenses that are text."""
    others = card.get("datasets_of_streams", [])
    if not isinstance(others, list) or not all(isinstance(facts, dict) for facts in others):
        raise ValueError(f"its Card's datasets_of_streams must be a list of objects, got {excerpt(others)}")
    named = [("dataset", card.get("dataset", {})), *(("datasets_of_streams", facts) for facts in others)]
    for where, facts in named:
        if not isinstance(name := facts.get("name", ""), str):
            raise ValueError(f"its Card's {where}.name must be text, got {excerpt(name)}")
        if not isinstance(terms := facts.get("license"), (str, type(None))):
            raise ValueError(f"its Card's {where}.license must be text or null, got {excerpt(terms)}")


def read_model(path: str | Path, device: str = "cpu", verify: bool = True) -> Model:
    """The Model in a weights file, in eval mode. ``verify``: compare the file with its checksum. Raises ValueError if
    the file is not a whole weights file, before anything of the size that its Card asks for is allocated."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zoo.build_check import build_on_meta, check_pretrained_build, fill
    from zoo.pretrained import attach

    header, card = _open(path)
    try:
        if verify:
            tensor_file.verify(path, header)
        model = fill(build_on_meta(card["model"], header.tensors), load_file(path), card)
        declared = _pretrained_of(card)
        for name, p in declared.items():
            check_pretrained_build(name, p)
        attach(model, card["model"], load_pretrained(declared))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"weights '{path}': {one_line(error)}") from None
    return model.to(device).eval().requires_grad_(False)


def load_pretrained(pretrained: Mapping[str, Pretrained]) -> dict[str, Frozen]:
    """Pretrained networks with their weights, by name. Raises ValueError, with the remedy, if they are not at hand."""
    from zoo import pretrained as networks

    shipped = index()
    return {
        name: networks.load(name, p, find(p.source) if p.source in shipped else None) for name, p in pretrained.items()
    }


def absence(pretrained: Mapping[str, Pretrained]) -> list[str]:
    """A sentence for each pretrained network whose weights the user must bring first, before a run can begin."""
    from zoo import pretrained as networks

    shipped = index()
    return [text for name, p in pretrained.items() if p.source not in shipped and (text := networks.absence(name, p))]


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


def data_license(card: Json) -> str:
    """The licenses of the data that a model was trained on, by its Card; of several sets with their names."""
    sets = [card.get("dataset") or {}, *card.get("datasets_of_streams", ())]
    licenses = {d.get("name", ""): d.get("license") or "not stated" for d in sets}
    if len(licenses) == 1:
        return next(iter(licenses.values()))
    return "; ".join(f"{name}: {text}" for name, text in licenses.items())


def check_available(device: str | torch.device) -> None:
    """Raises ValueError if this machine does not have the device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = f"not available here ({one_line(error)})"
        raise ValueError(f"device='{device}': {reason}; must be cpu, cuda or mps") from None


def one_line(error: Exception) -> str:
    """An error's message in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


# Names --------------------------------------------------------------------------------------------------------------


def index(folder: str | Path | None = None) -> dict[str, Json]:
    """The index of a weights folder: name -> ``{"file", "sha256", "tensors", "bytes", "recipe", "half", ...}``."""
    path = Path(folder or SHIPPED) / "index.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"index '{path}': must be JSON ({one_line(error)})") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"index '{path}': must have an object for each name")
    return entries


def find(name_or_path: str | Path) -> Path:
    """The weights file that a name, a ``.safetensors`` file, a run folder or ``hf:OWNER/NAME`` means; a shipped file is
    compared with the index. If a setting is not shipped and its reduced one is, ``NAME-small``, that one is meant, and
    a line on stderr says so. Raises ValueError if there is none; OSError if the hub does not answer."""
    name = str(name_or_path)
    if name.startswith("hf:"):
        return _download(name)
    shipped = index()
    name = published_name(name)
    if name in shipped:
        path = SHIPPED / check_name(shipped[name]["file"], f"weights '{name}': file=")
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
            raise ValueError(f"run '{name}': has no {WEIGHTS} yet; zoo resume {shell_word(name)} finishes it")
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
        others = weights_of(entry["model"])
        advice = f"; published of {entry['model']}: {', '.join(others)}" if others else ""
        raise ValueError(f"weights '{name}' are not published; this trains them: {command}{advice}")
    if name in settings.models():
        others = weights_of(name)
        advice = (
            f"published of it: {', '.join(others)}" if others else f"none are published; zoo train {name} trains it"
        )
        raise ValueError(f"'{name}' is a model, must be the name of weights; {advice}")
    raise ValueError(f"unknown weights '{name}'{nearest(name, shipped)} (zoo list weights)")


def weights_of(model: str) -> list[str]:
    """The names of the shipped weights of a model."""
    recipes = [name for name in settings.names() if settings.RECIPES[name]["model"] == model]
    return [name for name, entry in index().items() if entry["recipe"] in recipes]


def published_name(name: str) -> str:
    """``name``, or that of the reduced setting if only that one is shipped and there is no file or folder of this name,
    with a line on stderr."""
    shipped, reduced = index(), f"{name}-small"
    if name in shipped or reduced not in shipped or name not in settings.names() or Path(name).exists():
        return name
    _warn_of_reduced(name, reduced)
    return reduced


@functools.cache  # once a process is enough
def _warn_of_reduced(name: str, reduced: str) -> None:
    about = settings.RECIPES[reduced]["about"].rstrip(".")
    logger.warning("zoo: weights '%s' are not published; these are '%s': %s", name, reduced, about)


def load(name_or_path: str | Path, device: str = "cpu", code: str | Path | None = None) -> Model:
    """A trained Model in eval mode, with its Card.

    ``name_or_path``: the name of shipped weights, a ``.safetensors`` file, a run's folder, or ``hf:OWNER/NAME``.
    ``code``: the recipe file that registers its networks; by default the one that it was trained with, if that was here
    and by this user (:mod:`zoo.own_code`).
    Raises ValueError if there is none of that name, or the file is truncated, changed or not the zoo's.
    """
    check_device(device)
    path = find(name_or_path)
    shipped = published_name(str(name_or_path)) in index()  # then the whole file was compared with the index
    check_available(device)
    if code is not None:
        own_code.run(code)
    reason = own_code.recall(read_header(path)["card"].get("code")) if code is None else ""
    try:
        return read_model(path, device, verify=not shipped)
    except ValueError as error:
        raise (error if code is not None else own_code.explain(error, reason)) from None


def repository(name: str) -> tuple[ModuleType, str]:
    """huggingface_hub and the repository that ``hf:OWNER/NAME`` names. Raises ValueError if the name has another form
    or the package is missing."""
    path = name.removeprefix("hf:")
    if not re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", path):
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
