"""Adversarial losses: pairs of functions of D's raw scores, for what D lowers and what G lowers.

Scores may have any shape (patch discriminators give maps); every loss is a mean over all of them, in float32.
A new loss is one function here (or in another distribution's ``zoo.losses`` entry point) and a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus

from zoo.registry import LOSSES


class Pair(NamedTuple):
    """``d(real, fake)`` is what D lowers; ``g(real, fake)`` is what G lowers (``real`` is None unless ``relative``).

    ``relative``: G's loss compares with the scores of reals, so its turn needs real data."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor | None, Tensor], Tensor]
    relative: bool = False


@LOSSES.register("minimax")
def minimax(smooth: float = 1.0, scale: float = 1.0) -> Pair:
    """The game of Goodfellow et al. 2014, eq. 1, with l = D's logit: D lowers -E log D(x) - E log(1 - D(G(z))), G lowers
    E log(1 - D(G(z))), which saturates where D is sure.

    ``smooth``: D's target for reals (one-sided label smoothing, Salimans et al. 2016, 3.4). ``scale``: factor on D's loss.
    """
    return Pair(_cross_entropy(smooth, scale), lambda real, fake: -softplus(fake.float()).mean())


@LOSSES.register("non-saturating")
def non_saturating(smooth: float = 1.0, scale: float = 1.0) -> Pair:
    """As minimax for D; G lowers -E log D(G(z)) (Goodfellow et al. 2014, section 3, end). Arguments as ``minimax``."""
    return Pair(_cross_entropy(smooth, scale), lambda real, fake: softplus(-fake.float()).mean())


def _cross_entropy(smooth: float, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    def d(real: Tensor, fake: Tensor) -> Tensor:
        # -(s log D + (1 - s) log(1 - D)) = softplus(-l) + (1 - s) l
        real, fake = real.float(), fake.float()
        on_real = softplus(-real).mean()
        if smooth != 1.0:
            on_real = on_real + (1.0 - smooth) * real.mean()
        return scale * (on_real + softplus(fake).mean())

    return d


@LOSSES.register("least-squares")
def least_squares(a: float = 0.0, b: float = 1.0, c: float = 1.0) -> Pair:
    """Mao et al. 2017, eq. 2: D lowers 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2, G lowers 1/2 E (D(G(z)) - c)^2.
    The Pearson chi^2 form is a = -1, b = 1, c = 0."""
    return Pair(
        lambda real, fake: 0.5 * (real.float() - b).square().mean() + 0.5 * (fake.float() - a).square().mean(),
        lambda real, fake: 0.5 * (fake.float() - c).square().mean(),
    )


@LOSSES.register("wasserstein")
def wasserstein() -> Pair:
    """Arjovsky et al. 2017, algorithm 1, with the paper's sign: D lowers E f(G(z)) - E f(x), G lowers -E f(G(z))."""
    return Pair(
        lambda real, fake: fake.float().mean() - real.float().mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("hinge")
def hinge() -> Pair:
    """Miyato et al. 2018, eq. 16 and 17: D lowers E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), G lowers -E D(G(z))."""
    return Pair(
        lambda real, fake: relu(1.0 - real.float()).mean() + relu(1.0 + fake.float()).mean(),
        lambda real, fake: -fake.float().mean(),
    )
