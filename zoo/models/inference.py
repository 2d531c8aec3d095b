"""How networks run when a model is used: evaluation mode, or as the recipe's ``sampling`` says.

``batch``: batch (and instance) normalization uses the statistics of the pass, and its running averages stay as they
are. ``standing``: evaluation mode; the statistics of several passes, averaged, have replaced the running averages
before the weights were shipped (A. Brock, J. Donahue, K. Simonyan, 2018, arXiv 1809.11096). ``dropout``: dropout is
active; the mask of an image comes from its own seed, so that it does not depend on the rest of the pass.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.networks.layers import BatchNorm2d
from zoo.recipe import Sampling
from zoo.seeds import seed_for

Module = TypeVar("Module", bound=nn.Module)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
STATISTICS = ("running_mean", "running_var", "track_running_stats")


def sampling_of(spec: Mapping[str, Any] | None) -> Sampling:
    """The sampling of a model spec: ``{"mode": "batch", "chunk": 64}``; None: evaluation mode. Raises ValueError if it
    is neither."""
    try:
        return Sampling(**(spec or {}))
    except TypeError:
        raise ValueError(f"model spec: sampling={spec}: must have the keys mode and chunk") from None


def check_sampling(sampling: Sampling, networks: Mapping[str, nn.Module]) -> None:
    """Raises ValueError for a mode that would change nothing of these networks."""
    layers = {"batch": NORMS, "standing": NORMS, "dropout": (nn.modules.dropout._DropoutNd,)}.get(sampling.mode)
    if layers and not any(isinstance(m, layers) for network in networks.values() for m in network.modules()):
        kind = "dropout" if sampling.mode == "dropout" else "normalization"
        raise ValueError(f"sampling.mode={sampling.mode}: must be running, since {', '.join(networks)} has no {kind}")


@contextlib.contextmanager
def inference(model: nn.Module, sampling: Sampling = Sampling(), seeds: Sequence[int] = ()) -> Iterator[None]:
    """Evaluation mode, changed as ``sampling`` says, and no gradient. Afterwards each module has its former mode, so
    that a run can sample while it trains. ``seeds``: of the images of a pass, for dropout."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if sampling.together is not None:
                stack.enter_context(batch_statistics(model))
            if sampling.mode == "dropout":
                stack.enter_context(active_dropout(model, seeds))
            yield
    finally:
        for m in training:
            m.training = True


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalization layers use the statistics of their input and keep their running averages."""
    before = [(m, [getattr(m, name) for name in STATISTICS]) for m in model.modules() if isinstance(m, NORMS)]
    use_batch_statistics(model)
    try:
        yield
    finally:
        for m, values in before:
            for name, value in zip(STATISTICS, values, strict=True):
                setattr(m, name, value)


def use_batch_statistics(model: Module) -> Module:
    """The same model; its normalization layers have lost their running averages, for good."""
    for m in model.modules():
        if isinstance(m, NORMS):
            m.running_mean = m.running_var = None
            m.track_running_stats = False
    return model


@contextlib.contextmanager
def standing_statistics(model: nn.Module) -> Iterator[None]:
    """The averages of batch norm begin anew and become the means, of mean and variance, over the passes inside. Nothing
    else of the model is in training mode. For one process: the statistics of others do not count."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    before = [(m, m.momentum) for m in norms]
    synchronized = [m for m in norms if isinstance(m, BatchNorm2d) and m.sync]
    with inference(model):
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # torch's word for a cumulative average
            m.train()
        for layer in synchronized:
            layer.sync = False
        try:
            yield
        finally:
            for m, momentum in before:
                m.momentum = momentum
                m.eval()
            for layer in synchronized:
                layer.sync = True


@contextlib.contextmanager
def active_dropout(model: nn.Module, seeds: Sequence[int]) -> Iterator[None]:
    """Dropout layers drop, each image by a mask that depends on its own seed alone."""
    generators = [torch.Generator().manual_seed(seed_for(seed, "dropout")) for seed in seeds]
    layers = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    for m in layers:
        m.__dict__["forward"] = functools.partial(drop, m, generators)
    try:
        yield
    finally:
        for m in layers:
            del m.__dict__["forward"]


def drop(layer: nn.modules.dropout._DropoutNd, generators: Sequence[torch.Generator], x: Tensor) -> Tensor:
    """x [N, ...] with a share ``layer.p`` of each image's values (of its channels for Dropout2d) set to 0 and the rest
    scaled up."""
    assert len(x) == len(generators), "one seed for each image"
    shape = list(x.shape[1:])
    if not isinstance(layer, nn.Dropout):
        shape[1:] = [1] * (x.ndim - 2)
    keep = torch.stack([torch.rand(shape, generator=g) >= layer.p for g in generators]).to(x.device)
    return x * keep / (1 - layer.p) if layer.p < 1 else x * 0
