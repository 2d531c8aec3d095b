"""A model spec from a file that is not trusted: its networks are built on ``meta``, with tensors without memory,
compared with the tensors in the file, and filled with them.

What a spec may cost is bounded by the file: a network has no more parameters than the file has numbers, and no number
in the spec is larger than that (or 65,536). So the time and memory of a refusal do not depend on the spec.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from zoo.checks import excerpt
from zoo.files import Json
from zoo.models import Model, build_model
from zoo.recipe import Pretrained
from zoo.registry import NETWORKS
from zoo.tensor_file import Entry

MAX_DEPTH, MAX_VALUES, MAX_CHARACTERS, MAX_NUMBER, MAX_NETWORKS = 16, 100_000, 2_000, 1 << 16, 256
# Modules, parameters and buffers that networks may make: for each tensor of the file, and at most.
REGISTRATIONS_PER_TENSOR, MAX_REGISTRATIONS = 16, 10_000
# Numbers in the parameters and buffers of a pretrained network: if a file of weights must fit it, and if there is none.
PRETRAINED_ELEMENTS, SOURCELESS_ELEMENTS = 1 << 33, 1 << 24
VALUES = {"normal_", "uniform_", "trunc_normal_", "bernoulli_", "zero_", "fill_", "constant_", "copy_", "mul_", "add_",
          "div_", "clamp_", "erfinv_", "xavier_uniform_", "xavier_normal_", "kaiming_normal_", "kaiming_uniform_",
          "orthogonal_", "zeros_", "ones_"}  # fmt: skip
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
OTHERS = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}


def build_on_meta(spec: Any, tensors: Mapping[str, Entry]) -> Model:
    """The model of ``spec``, with its networks on ``meta``.

    Raises ValueError if ``spec`` is not a model spec, or its networks do not have the ``tensors`` of the file: the same
    names and shapes, and types that can be read into theirs. Any exception of a network's constructor becomes a
    ValueError.
    """
    elements = sum(entry.elements for entry in tensors.values())
    _check_values(spec, max(MAX_NUMBER, elements))
    _check_fields(spec)
    registrations = min(REGISTRATIONS_PER_TENSOR * len(tensors) + 1000, MAX_REGISTRATIONS)
    more = "the networks of its Card have more parameters than the file"
    with _bounded_build(registrations, 4 * elements + MAX_NUMBER, more):
        model = build_model(spec)
    problem = _difference(model.state_dict(), tensors)
    if problem:
        raise ValueError(f"the tensors do not fit the networks of its Card ({problem})")
    return model


def check_pretrained_build(name: str, pretrained: Pretrained) -> None:
    """Build a pretrained network of a Card on ``meta``. Raises ValueError if it can't be built, or has more than
    ``PRETRAINED_ELEMENTS`` numbers, ``SOURCELESS_ELEMENTS`` without a file of weights that it has to fit."""
    elements = PRETRAINED_ELEMENTS if pretrained.source else SOURCELESS_ELEMENTS
    more = f"pretrained.{name}: must have at most {MAX_REGISTRATIONS:,} modules and tensors, of {elements:,} numbers"
    with _bounded_build(MAX_REGISTRATIONS, elements, more), torch.random.fork_rng(devices=[]):
        NETWORKS.build(pretrained.network)


def fill(model: Model, tensors: Mapping[str, Tensor], card: Json) -> Model:
    """The model on the CPU, with ``tensors`` as its weights. ``model``: of :func:`build_on_meta`."""
    if _only_weights(model):
        own = model.state_dict()
        copies = {name: value.to(own[name].dtype, copy=True) for name, value in tensors.items()}
        model.load_state_dict(copies, assign=True)
        return build_model(model.spec, model.networks, card)  # again: a prior may have tensors too
    filled = build_model(model.spec, card=card)
    filled.load_state_dict(tensors)
    return filled


def _only_weights(model: Model) -> bool:
    """Whether the file has each tensor of the networks, so that none is computed by a constructor. A weight with two
    names must stay one."""
    plain = [value for m in model.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    tensors = [*model.parameters(), *model.buffers()]
    return not plain and len(tensors) == len(model.state_dict())


def _check_values(spec: object, largest: float) -> None:
    """Raises ValueError for deep nesting, long strings, and numbers that are too large or not finite."""
    todo, count = [(spec, 0)], 0
    while todo:
        value, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(f"its Card's model must have at most {MAX_DEPTH} levels and {MAX_VALUES} values")
        if isinstance(value, dict):
            todo += [(part, depth + 1) for item in value.items() for part in item]
        elif isinstance(value, list):
            todo += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and len(value) > MAX_CHARACTERS:
            raise ValueError(
                f"its Card's model has a string of {len(value)} characters; must be at most {MAX_CHARACTERS}"
            )
        elif isinstance(value, (int, float)) and not abs(value) <= largest:
            raise ValueError(
                f"its Card's model has the number {excerpt(value)}; must be at most {largest}, as its tensors are"
            )


def _check_fields(spec: Any) -> None:
    """Raises ValueError if what each model has is missing or of another type."""

    def build_spec(value: object) -> bool:
        return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("kwargs"), dict)

    def whole(value: object, least: int) -> bool:
        return type(value) is int and least <= value <= MAX_NUMBER

    if not isinstance(spec, dict):
        raise ValueError("its Card's model must be a JSON object")
    for key in ("kind", "networks", "range", "resolution", "channels"):
        if key not in spec:
            raise ValueError(f"model spec: '{key}' is missing")
    networks, values = spec["networks"], spec["range"]
    if (
        not isinstance(networks, dict)
        or not 1 <= len(networks) <= MAX_NETWORKS
        or not all(map(build_spec, networks.values()))
    ):
        raise ValueError(f"model spec: 'networks' must be 1 to {MAX_NETWORKS} networks, each with a name and kwargs")
    if "prior" in spec and not build_spec(spec["prior"]):
        raise ValueError("model spec: 'prior' must have a name and kwargs")
    numbers = isinstance(values, list) and len(values) == 2 and all(type(v) in (int, float) for v in values)
    if not numbers or not values[0] < values[1]:
        raise ValueError("model spec: 'range' must be two numbers that ascend")
    if not whole(spec["resolution"], 0) or not whole(spec["channels"], 1):
        raise ValueError("model spec: 'resolution' and 'channels' must be whole numbers")


class _NoValues(TorchFunctionMode):
    """Tensors are not given values: ``normal_`` and the like return at once. On ``meta`` they have no effect, but the
    first of them imports parts of torch that take most of a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "") in VALUES and isinstance(first, Tensor) and first.is_meta:
            return first
        return func(*args, **kwargs)


@contextlib.contextmanager
def _bounded_build(registrations: int, elements: int, more: str) -> Iterator[None]:
    """Networks of a Card are built on ``meta`` in the block. Raises ValueError ``more`` as :func:`_bounded`, and if
    they can't be built."""
    try:
        with torch.device("meta"), _NoValues(), _bounded(registrations, elements, more):
            yield
    except ValueError:
        raise
    except Exception as error:  # a constructor may raise anything when it gets arguments of a wrong type or value
        raise ValueError(f"the networks of its Card can't be built ({type(error).__name__}: {error})") from None


@contextlib.contextmanager
def _bounded(registrations: int, elements: int, more: str) -> Iterator[None]:
    """While this thread builds networks: raises ValueError ``more`` when they register more modules, parameters and
    buffers, or more elements of these, than given."""
    thread, count, total = threading.get_ident(), 0, 0

    def register(owner: nn.Module, name: str, value: object) -> None:
        nonlocal count, total
        if threading.get_ident() != thread:
            return
        count += 1
        total += math.prod(value.shape) if isinstance(value, Tensor) else 0
        if count > registrations or total > elements:
            raise ValueError(more)

    with contextlib.ExitStack() as stack:
        for kind in ("module", "parameter", "buffer"):
            hook = getattr(torch_module, f"register_module_{kind}_registration_hook")(register)
            stack.callback(hook.remove)
        yield


def _difference(own: Mapping[str, Tensor], tensors: Mapping[str, Entry]) -> str:
    """The first difference between a model's tensors and those of the file, '' if there is none."""
    for name, value in own.items():
        entry = tensors.get(name)
        if entry is None:
            return f"{name} is missing"
        if entry.shape != tuple(value.shape):
            return f"{name} must have the shape {list(value.shape)}, got {list(entry.shape)}"
        if entry.dtype not in FLOATS if value.is_floating_point() else OTHERS.get(entry.dtype) is not value.dtype:
            return f"{name} must be {value.dtype}, got {entry.dtype}"
    more = next((name for name in tensors if name not in own), None)
    return f"{more[:80]} is in no network" if more is not None else ""
