"""What callers pass to a Model: images, seeds, domains, chunks; each checked, with an error that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zoo.checks import check_list, check_whole, excerpt, whole_number
from zoo.data.images import to_array, to_pil
from zoo.registry import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

SEEDS = 2**32  # torch's CPU generator uses 32 bits of a seed

Images: TypeAlias = "Tensor | Image | Sequence[Tensor | Image]"
Classes: TypeAlias = int | str | Sequence[int | str] | Tensor | np.ndarray  # one for all images, or one for each
CodeValues: TypeAlias = Mapping[str, float | Sequence[float] | Tensor]
NoiseSeeds: TypeAlias = int | Sequence[int] | Literal["none"]  # of all images, of each, or no noise
Mix: TypeAlias = tuple[int | Sequence[int], int]  # a seed for all images, or one for each, and a layer


def as_batch(images: Images, channels: int) -> Tensor:
    """A tensor, PIL image or list of either -> float32 [N, C, H, W] in [0, 1]. Raises ValueError for anything else."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("images: the list is empty")
        parts = [as_batch(i, channels) for i in images]
        sizes = {tuple(p.shape[-2:]) for p in parts}
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
            raise ValueError(f"images: must have one size, got {listed}")
        return torch.cat(parts)
    if isinstance(images, Tensor):
        x = images.float()
        x = x[None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != channels or not x.numel():
            raise ValueError(f"images of shape {list(images.shape)}: must be [N, {channels}, H, W], N at least 1")
        check_unit("images", images)
        return x
    from PIL.Image import Image as PILImage

    if not isinstance(images, PILImage):
        raise ValueError(f"images: must be a tensor, a PIL image or a list of them, got {type(images).__name__}")
    if channels not in (1, 3):
        raise ValueError(f"images: must be a tensor, since the model has {channels} channels, got a PIL image")
    return torch.from_numpy(to_array(to_pil(images, channels)))[None].float() / 255


def check_unit(what: str, images: Tensor) -> None:
    """Raises ValueError unless they are floats in [0, 1]."""
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():  # a NaN is not
        raise ValueError(f"{what}: must be float, from 0 (black) to 1 (white)")


def as_vector(key: str, value: Tensor | Sequence[float], length: int) -> Tensor:
    """Numbers as a tensor [length]. Raises ValueError for another shape, or if they are not finite."""
    try:
        vector = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{key}={excerpt(value)}: must be {length} numbers") from None
    if vector.shape != (length,) or not vector.isfinite().all():
        raise ValueError(f"{key}: must be {length} finite numbers, got {vector.dtype} {list(vector.shape)}")
    return vector


def plain_value(value: Any) -> Any:
    """Tensors and NumPy's arrays and numbers as Python's lists and numbers; anything else as it is."""
    return value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value


def check_seed(seed: int | float) -> int:
    """A seed as Python's int, whatever the type of the whole number, 3.0 too. Raises ValueError if it is not a seed."""
    plain = plain_value(seed)
    number = whole_number(int(plain) if isinstance(plain, float) and plain.is_integer() else plain)
    if number is None or not 0 <= number < SEEDS:
        raise ValueError(f"seed={excerpt(seed)}: must be a whole number from 0 to {SEEDS - 1}")
    return number


def seed_list(n: int | None, seed: int, seeds: Sequence[int] | None) -> Sequence[int]:
    """``seeds``, or n from ``seed`` on (by default one), as Python's ints. Raises ValueError if they do not fit."""
    if seeds is not None:
        seeds = plain_value(seeds)
        check_list("seeds", seeds, "seeds")
        if n not in (None, len(seeds)):
            raise ValueError(f"n={n}: must be the number of seeds, got {len(seeds)} seeds")
        if not len(seeds):
            raise ValueError("seeds: the list is empty")
        if isinstance(seeds, range):  # it may be long
            check_seed(min(seeds[0], seeds[-1]))
            check_seed(max(seeds[0], seeds[-1]))
            return seeds
        return [check_seed(s) for s in seeds]
    n = 1 if n is None else check_whole("n", n)
    seed = check_seed(seed)
    if seed + n > SEEDS:
        raise ValueError(f"n={n}: the last seed must be at most {SEEDS - 1}, got {seed + n - 1}")
    return range(seed, seed + n)


def find_domain(to: str, domains: Sequence[str], names: Mapping[str, str], verb: str) -> str:
    """The one of ``domains`` whose letter or name (by ``names``) is ``to``. Raises ValueError if there is none."""
    for domain in domains:
        if to in (domain, names.get(domain)):
            return domain
    options = [*domains, *(names[d] for d in domains if names.get(d, d) != d)]
    raise ValueError(f"to='{to}': no such domain{nearest(str(to), options)}; this model {verb} {', '.join(options)}")


def check_chunk(chunk: int) -> int:
    """The same number. Raises ValueError if it is below 1."""
    return check_whole("chunk", chunk)


def check_size(images: Tensor, resolution: int) -> None:
    """Raises ValueError unless the images are squares of ``resolution`` pixels."""
    if tuple(images.shape[-2:]) != (resolution,) * 2:
        height, width = images.shape[-2:]
        raise ValueError(f"images of {width}x{height}: this model takes {resolution}x{resolution}")


def class_numbers(y: Classes | None, n: int, count: int, names: Sequence[str]) -> Tensor | None:
    """Class numbers int64 [n] from a number, a name, or n of them; None for None. ``count``: of the classes, 0 for a
    model without. Raises ValueError for an invalid class."""
    if y is None:
        return None
    if not count:
        raise ValueError(f"y={y!r}: this model is not class-conditional")
    plain = plain_value(y)
    one = isinstance(plain, str) or not isinstance(plain, Sequence)
    values = [plain] if one else [*plain]
    if not one and len(values) != n:
        raise ValueError(f"y: must be one class, or one for each of {n} images, got {len(values)} classes")
    numbers = torch.tensor([class_number(v, count, names) for v in values], dtype=torch.int64)
    return numbers.expand(n) if one else numbers


def class_number(value: Any, count: int, names: Sequence[str]) -> int:
    """The number of a class, from its number or its name. A text that is a class's name is that class, whatever its
    number. Raises ValueError if it is neither, or may be either."""
    if isinstance(value, str):
        if names.count(value) > 1:
            numbers = ", ".join(str(i) for i, name in enumerate(names) if name == value)
            raise ValueError(f"y='{value}': classes {numbers} have this name; give a number")
        if value in names:
            return names.index(value)
        same = [i for i, name in enumerate(names) if name.casefold() == value.casefold()]
        if len(same) == 1:
            return same[0]
        if any(name.lstrip("-").isdigit() for name in names):  # is "3" the fourth class, or one called 3?
            raise ValueError(f"y='{value}': no class has this name{nearest(value, names)}; the model has "
                             f"{', '.join(names[:20])}")  # fmt: skip
        if not value.lstrip("-").isdigit():
            listed = ", ".join(names[:20]) or f"numbers 0 to {count - 1}"
            raise ValueError(f"y='{value}': no such class{nearest(value, names)}; the model has {listed}")
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if isinstance(value, (bool, float)) or not 0 <= number < count:
        raise ValueError(f"y={value}: must be a class number from 0 to {count - 1}, or a class name")
    return number


def code_values(codes: CodeValues | None, n: int, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Values [n] by name. ``sizes``: how many values each code has, 0 for a continuous one. Raises ValueError for an
    invalid code or value."""
    if codes is not None and not isinstance(codes, Mapping):
        raise ValueError(f"codes={excerpt(codes)}: must be values by the names of codes")
    expanded = {}
    for name, value in (codes or {}).items():
        if name not in sizes:
            names = ", ".join(sizes) or "none"
            raise ValueError(f"codes: no '{name}'{nearest(name, sizes)}; this model has {names}")
        try:
            values = torch.as_tensor(value, dtype=torch.float32).cpu()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"codes.{name}={excerpt(value)}: must be a number, or one for each image") from None
        k = sizes[name]
        if values.dim() > 1 or (values.dim() == 1 and len(values) != n):
            raise ValueError(f"codes.{name}: must be one value, or one for each of {n} images, got {values.numel()}")
        if k and not all(v in range(k) for v in values.flatten().tolist()):
            raise ValueError(f"codes.{name}={value}: must be whole numbers from 0 to {k - 1}")
        if not torch.isfinite(values).all():
            raise ValueError(f"codes.{name}={value}: must be finite numbers")
        expanded[name] = values.expand(n)
    return expanded


def seeds_of_images(value: int | Sequence[int], n: int, what: str) -> list[int]:
    """A seed for each of n images, from one for all or from n. Raises ValueError for others; ``what``: the argument."""
    plain: Any = plain_value(value)
    seeds = [*plain] if isinstance(plain, Sequence) else [plain] * n
    if len(seeds) != n:
        raise ValueError(f"{what}: must be one seed, or one for each of {n} images, got {len(seeds)}")
    return [check_seed(seed) for seed in seeds]


def noise_seeds(noise: NoiseSeeds | None, n: int, shapes: Mapping[str, Any]) -> list[int | None] | None:
    """The seed of each image's noise inputs, None for no noise; None if they are the images' own. ``shapes``: of the
    noise inputs. Raises ValueError if there are none, or for another value."""
    if noise is None:
        return None
    noise = plain_value(noise)
    if not shapes:
        raise ValueError(f"noise={excerpt(noise)}: must be a model whose generator has noise inputs; leave it out")
    if noise == "none":
        return [None] * n
    if isinstance(noise, str):
        raise ValueError(f"noise='{noise}': must be a seed, a seed for each image, or 'none'")
    return [*seeds_of_images(noise, n, "noise")]


def mixed_seeds(mix: Mix | None, n: int, styles: int) -> tuple[list[int], int] | None:
    """The seed of each image's second style and the layer from which on it has it; None without. ``styles``: of an
    image, 0 for a model without. Raises ValueError for others."""
    if mix is None:
        return None
    if not isinstance(mix, tuple) or len(mix) != 2:
        raise ValueError(f"mix={excerpt(mix)}: must be (seed, layer)")
    seeds, layer = mix[0], whole_number(plain_value(mix[1]))
    if not styles:
        raise ValueError(f"mix={excerpt(mix)}: must be a model with styles; leave it out")
    if layer is None or not 0 <= layer <= styles:
        raise ValueError(f"mix: the layer must be a whole number from 0 to {styles}, got {excerpt(mix[1])}")
    return seeds_of_images(seeds, n, "mix"), layer
