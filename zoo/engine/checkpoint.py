"""Checkpoints: one safetensors file with the whole state of a run; a kill at any instant leaves a whole one.

The file is written beside its target, flushed to the disk and renamed over it; a kill or a full disk leaves the last
good one. What can be derived is not in it: schedules are functions of the images seen, random numbers of (seed, round).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo import tensor_file
from zoo.engine.ema import EmaNetworks
from zoo.engine.step import Learner
from zoo.files import NoSpace, beside, no_space, shell_word
from zoo.game import Game

CHECKPOINT = "checkpoint.safetensors"  # in a run's folder


@contextlib.contextmanager
def disk(run: Path) -> Iterator[None]:
    """Raises NoSpace, with the file and how to continue, if the disk is full."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NoSpace) or not no_space(error):
            raise
        whole = (run / CHECKPOINT).exists()
        state = "its last good checkpoint is whole" if whole else "it has no checkpoint yet"
        remedy = f"continue with zoo resume {shell_word(run)}" if whole else "begin it again"
        name = Path(error.filename).name if error.filename else "its log"
        raise NoSpace(
            f"run '{run}': {name} cannot be written ({os.strerror(error.errno or 0).lower()}); "
            f"{state}: free some space, then {remedy}"
        ) from None


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts as one safetensors file, atomically. Raises :class:`zoo.tensor_file.NotFinite` if a
    tensor is not finite; the last good file stays."""
    storages: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:  # a shared parameter is stored under each of its names
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    tensor_file.check_finite(plain, f"checkpoint {path}")
    with beside(path) as partial:
        tensor_file.write(partial, plain, {"zoo": json.dumps(facts)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file written by :func:`save`. Raises ValueError if it is missing, truncated, changed or no
    checkpoint."""
    if not Path(path).is_file():
        raise ValueError(f"checkpoint {path}: no such file; is this the folder of a run?")
    try:
        tensor_file.verify(path, tensor_file.read_header(path))
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["zoo"])
            return {k: file.get_tensor(k) for k in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"checkpoint {path}: unreadable or not a checkpoint ({error})") from None


def collect(game: Game, learner: Learner, ema_networks: EmaNetworks) -> dict[str, Tensor]:
    """The state of a run, by name: ``game.*``, ``optimizers.PLAYER.PARAMETER.KEY``, ``ema.NETWORK.*``."""
    tensors = {f"game.{k}": v for k, v in game.state_dict().items()}
    for player, named in learner.players.items():
        state = learner.optimizers[player].state
        for name, p in named.items():
            for key, value in state.get(p, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizers.{player}.{name}/{key}"] = value
    for name, ema_network in ema_networks.items():
        tensors.update({f"ema.{name}.{k}": v for k, v in ema_network.network.state_dict().items()})
    return tensors


def restore(tensors: Mapping[str, Tensor], game: Game, learner: Learner, ema_networks: EmaNetworks) -> None:
    """The inverse of :func:`collect`. Moments take their parameter's own layout: fused kernels pair elements by
    storage order."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    game.load_state_dict(under("game."))
    for player, named in learner.players.items():
        optimizer = learner.optimizers[player]
        for full, value in under(f"optimizers.{player}.").items():
            name, _, key = full.rpartition("/")
            p = named[name]
            if value.shape == p.shape and key != "step":
                value = torch.empty_like(p, requires_grad=False).copy_(value)
            elif optimizer.defaults.get("fused"):
                value = value.to(p.device)
            optimizer.state[p][key] = value
    for name, ema_network in ema_networks.items():
        ema_network.network.load_state_dict(under(f"ema.{name}."))
