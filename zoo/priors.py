"""Latent priors: distributions of the generator's noise, functions ``(n, generator, device) -> [n, dim]``, of
this module, so that a model can be pickled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.registry import PRIORS, Spec

Prior = Callable[[int, torch.Generator | None, torch.device | str], Tensor]


@PRIORS.register("normal")
def normal(dim: int) -> Prior:
    """N(0, 1) in ``dim`` dimensions."""
    return functools.partial(_draw_normal, dim)


def _draw_normal(dim: int, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    return torch.randn(n, dim, generator=generator, device=device)


@PRIORS.register("uniform")
def uniform(dim: int, low: float = -1.0, high: float = 1.0) -> Prior:
    """U(low, high) in ``dim`` dimensions."""
    return functools.partial(_draw_uniform, dim, low, high)


def _draw_uniform(
    dim: int, low: float, high: float, n: int, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    return torch.rand(n, dim, generator=generator, device=device) * (high - low) + low


@PRIORS.register("codes")
class Codes:
    """Noise and codes (Chen et al. 2016, section 4): [n, dim] has z ~ U(-1, 1)^``noise``, then a one-hot block for each
    categorical code, whose K values are equally likely, then ``continuous`` codes ~ U(-1, 1).

    The codes' names are c1, c2, ..., the categorical ones first.

    Args:
        noise: dimensions of z.
        categorical: the number of values of each categorical code.
        continuous: the number of continuous codes.
        dim: of the generator's input, None if unknown. Raises ValueError if the parts do not add up to it.
    """

    sizes: dict[str, int]  # values of a categorical code; 0 for a continuous one
    places: dict[str, slice]  # the columns of z that have the code

    def __init__(self, noise: int, categorical: Sequence[int] = (), continuous: int = 0, dim: int | None = None):
        self.noise, self.categorical, self.continuous = noise, tuple(categorical), continuous
        total = noise + sum(self.categorical) + continuous
        if dim not in (None, total):
            raise ValueError(
                f"prior 'codes': noise and codes must have the generator's latent={dim} dimensions, got {total}"
            )
        sizes = [*self.categorical, *[0] * continuous]
        self.sizes = {f"c{i + 1}": k for i, k in enumerate(sizes)}
        self.places, at = {}, noise
        for name, k in self.sizes.items():
            self.places[name] = slice(at, at + max(k, 1))
            at += max(k, 1)

    def __call__(self, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        def uniform(dim: int) -> Tensor:
            return torch.rand(n, dim, generator=generator, device=device) * 2 - 1

        parts = [uniform(self.noise)]
        for k in self.categorical:
            value = torch.randint(k, (n,), generator=generator, device=device)
            parts.append((value[:, None] == torch.arange(k, device=device)).to(parts[0].dtype))
        return torch.cat([*parts, uniform(self.continuous)], 1)

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The codes in z [n, dim], by name: one-hot [n, K], or values [n]."""
        return {n: z[:, at] if self.sizes[n] else z[:, at.start] for n, at in self.places.items()}

    def place(self, z: Tensor, codes: Mapping[str, Tensor]) -> Tensor:
        """A copy of z [n, dim] with other values of some codes, [n] each (class numbers for a categorical code)."""
        z = z.clone()
        for name, value in codes.items():
            k, at = self.sizes[name], self.places[name]
            z[:, at] = (value[:, None] == torch.arange(k)).to(z) if k else value[:, None].to(z)
        return z

    @property
    def outputs(self) -> int:
        """The number of parameters of Q(c|x): K logits per categorical code, mean and spread per continuous one."""
        return sum(self.categorical) + 2 * self.continuous

    def read(self, outputs: Tensor) -> dict[str, Tensor]:
        """Q's outputs [n, outputs], by code: log-probabilities [n, K], or means [n], float32. All logits come first,
        then all means, then all spreads, which are not used: the standard deviation is fixed at 1."""
        parts, at, outputs = {}, 0, outputs.float()
        for name, k in self.sizes.items():
            parts[name] = outputs[:, at : at + k].log_softmax(1) if k else outputs[:, at]
            at += max(k, 1)
        return parts


def build_prior(spec: Spec, network: nn.Module) -> Prior:
    """The prior of a generator; its dimension is the generator's ``latent`` unless the spec gives ``dim``. Raises
    ValueError if neither says it."""
    if getattr(network, "latent", None) is None and "dim" in PRIORS.parameters(spec.name) and "dim" not in spec.kwargs:
        raise ValueError(
            f"the network {type(network).__name__} has no attribute 'latent', the number of its noise inputs: set it "
            f"in its __init__ (self.latent = 64), or give the prior its dimension (Spec('{spec.name}', dim=64))"
        )
    return PRIORS.build(spec, defaults={"dim": getattr(network, "latent", None)})
