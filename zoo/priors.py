"""Latent priors: distributions of the generator's noise, ``(n, generator, device) -> [n, dim]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.registry import PRIORS, Spec

Prior = Callable[[int, torch.Generator | None, torch.device | str], Tensor]


@PRIORS.register("normal")
def normal(dim: int) -> Prior:
    """N(0, 1) in ``dim`` dimensions."""
    return lambda n, generator, device: torch.randn(n, dim, generator=generator, device=device)


@PRIORS.register("uniform")
def uniform(dim: int, low: float = -1.0, high: float = 1.0) -> Prior:
    """U(low, high) in ``dim`` dimensions."""
    return lambda n, generator, device: torch.rand(n, dim, generator=generator, device=device) * (high - low) + low


@PRIORS.register("codes")
class Codes:
    """Noise with codes beside it (Chen et al. 2016, section 4): [n, dim] holds z ~ U(-1, 1)^``noise``, then a one-hot block
    for each categorical code, all K values alike, then ``continuous`` codes ~ U(-1, 1).

    ``categorical``: the number of values of each. Codes are called c1, c2, ..., the categorical ones first. ``dim``: of the
    generator's input, where it is known; ValueError where the parts do not add up to it.
    """

    def __init__(self, noise: int, categorical: Sequence[int] = (), continuous: int = 0, dim: int | None = None):
        self.noise, self.categorical, self.continuous = noise, tuple(categorical), continuous
        whole = noise + sum(self.categorical) + continuous
        if dim not in (None, whole):
            raise ValueError(
                f"prior 'codes': noise and codes have {whole} dimensions, the generator takes latent={dim}"
            )
        sizes = [*self.categorical, *[0] * continuous]
        self.sizes = {
            f"c{i + 1}": k for i, k in enumerate(sizes)
        }  # values of a categorical code; 0 of a continuous one
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
        """A copy of z [n, dim] in which some codes have other values, [n] each (of a categorical code its number)."""
        z = z.clone()
        for name, value in codes.items():
            k, at = self.sizes[name], self.places[name]
            z[:, at] = (value[:, None] == torch.arange(k)).to(z) if k else value[:, None].to(z)
        return z

    @property
    def outputs(self) -> int:
        """How many numbers say Q(c|x): K logits a categorical code, mean and spread a continuous one."""
        return sum(self.categorical) + 2 * self.continuous

    def read(self, outputs: Tensor) -> dict[str, Tensor]:
        """Q's outputs [n, outputs], by code: log-probabilities [n, K], or means [n], float32. All logits come first, then
        all means, then all spreads, which nothing here reads: the deviation is 1."""
        found, at, outputs = {}, 0, outputs.float()
        for name, k in self.sizes.items():
            found[name] = outputs[:, at : at + k].log_softmax(1) if k else outputs[:, at]
            at += max(k, 1)
        return found


def build_prior(spec: Spec, network: nn.Module) -> Prior:
    """The prior of a generator; its dimension is the generator's ``latent`` where the spec is silent."""
    return PRIORS.build(spec, defaults={"dim": getattr(network, "latent", None)})
