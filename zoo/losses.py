"""Adversarial losses: pairs of functions of D's raw scores, for what D lowers and what G lowers.

A score is high where D takes an image for real; a game whose D gives energies hands their negatives on.
Scores may have any shape (patch discriminators give maps); every loss is a mean over all of them, in float32.
A new loss is one function here (or in another distribution's ``zoo.losses`` entry point) and a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from zoo import parallel
from zoo.registry import LOSSES, Spec


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


@LOSSES.register("margin")
def margin(margin: float = 10.0) -> Pair:
    """Zhao et al. 2016, eq. 1 and 2, with the energy D(x) = -score, which is never negative there: D lowers
    E D(x) + E max(0, margin - D(G(z))), G lowers E D(G(z))."""
    return Pair(
        lambda real, fake: relu(margin + fake.float()).mean() - real.float().mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("hinge")
def hinge() -> Pair:
    """Miyato et al. 2018, eq. 16 and 17: D lowers E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), G lowers -E D(G(z))."""
    return Pair(
        lambda real, fake: relu(1.0 - real.float()).mean() + relu(1.0 + fake.float()).mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("relativistic")
def relativistic(base: Spec = Spec("non-saturating"), average: bool = True, scale: float = 0.5) -> Pair:
    """Jolicoeur-Martineau 2018: D tells how much more real a real image looks than fakes do, and G's loss is D's with the roles
    exchanged. Where ``base`` lowers d(real, fake), D lowers scale * d(C(x) - C(G(z)), C(G(z)) - C(x)).

    ``average``: what is subtracted is the mean score of the other kind (section 4.2, RaGAN), or, where False, the score of the same
    rank in the batch (section 4.1, RGAN; for a symmetric ``base``). ``scale``: the authors' code halves the sum.
    RSGAN: ``average=False``. RaSGAN: as it stands. RaHingeGAN: ``base=Spec("hinge")``. RaLSGAN:
    ``base=Spec("least-squares", a=-1.0, b=1.0), scale=1.0``, whose base is halved already. ValueError from losses that are
    relative to reals themselves, and where pairs are to be made of unequal numbers.
    """
    pair = LOSSES.build(base)
    if pair.relative:
        raise ValueError(f"loss.base='{base.name}': is relative already; take one that is not")

    def d(real: Tensor, fake: Tensor) -> Tensor:
        real, fake = real.float(), fake.float()
        if average:
            of_real, of_fake = parallel.mean_with_gradient(real.mean()), parallel.mean_with_gradient(fake.mean())
        elif real.shape == fake.shape:
            of_real, of_fake = real, fake
        else:
            raise ValueError(f"loss.average=False: pairs need as many fakes as reals, not {len(fake)} and {len(real)}")
        return scale * pair.d(real - of_fake, fake - of_real)

    return Pair(d, lambda real, fake: d(fake, real), relative=True)


class Divergence(NamedTuple):
    """An f-divergence D_f(P||Q) = E_Q f(p/q), and what its variational bound is made of; functions elementwise.

    ``f(u)`` is convex, with f(1) = 0 (save GAN's). ``output(v)`` takes any real number, increasing, into the domain of the
    ``conjugate`` f*(t) = sup_u (u t - f(u)). ``composed(v)`` is f*(output(v)) in a form that does not overflow early. The bound
    E_P output(V) - E_Q composed(V) is D_f where output(V) = f'(p/q)."""

    f: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    composed: Callable[[Tensor], Tensor]


def _identity(v: Tensor) -> Tensor:
    return v


def _conjugate_of_jeffrey(t: Tensor) -> Tensor:
    """f*(t) = u - 1 + log u where f'(u) = log u + 1 - 1/u = t. With s = -log u that is e^s + s = 1 - t, so that e^s is Lambert's
    W(e^(1 - t)). The last of Newton's steps carries the gradient (first derivatives only)."""
    a = 1.0 - t
    with torch.no_grad():
        s = torch.where(a > 1.0, a.clamp(min=1.0).log(), a)  # right of the root of an increasing, convex function
        for _ in range(12):
            s = s - (s.exp() + s - a) / (s.exp() + 1.0)
    s = s - (s.exp() + s - a) / (s.exp() + 1.0)
    return torch.expm1(-s) - s


LOG2 = math.log(2.0)
DIVERGENCES = {
    "kl": Divergence(lambda u: u * u.log(), _identity, lambda t: (t - 1).exp(), lambda v: (v - 1).exp()),
    "reverse-kl": Divergence(lambda u: -u.log(), lambda v: -(-v).exp(), lambda t: -1 - (-t).log(), lambda v: v - 1),
    "pearson": Divergence(lambda u: (u - 1).square(), _identity, lambda t: t * t / 4 + t, lambda v: v * v / 4 + v),
    "neyman": Divergence(
        lambda u: (1 - u).square() / u,
        lambda v: -torch.expm1(-v),
        lambda t: 2 - 2 * (1 - t).sqrt(),
        lambda v: -2 * torch.expm1(-v / 2),
    ),
    "hellinger": Divergence(  # squared
        lambda u: (u.sqrt() - 1).square(), lambda v: -torch.expm1(-v), lambda t: t / (1 - t), torch.expm1
    ),
    "jensen-shannon": Divergence(  # twice the usual
        lambda u: u * u.log() - (u + 1) * ((1 + u) / 2).log(),
        lambda v: LOG2 - softplus(-v),
        lambda t: -(2 - t.exp()).log(),
        lambda v: softplus(v) - LOG2,
    ),
    "gan": Divergence(  # twice Jensen-Shannon's less log 4
        lambda u: u * u.log() - (u + 1) * (u + 1).log(),
        lambda v: -softplus(-v),
        lambda t: -torch.log(-torch.expm1(t)),
        softplus,
    ),
    "total-variation": Divergence(
        lambda u: (u - 1).abs() / 2, lambda v: v.tanh() / 2, _identity, lambda v: v.tanh() / 2
    ),
    "jeffrey": Divergence(lambda u: (u - 1) * u.log(), _identity, _conjugate_of_jeffrey, _conjugate_of_jeffrey),
}


@LOSSES.register("f-divergence")
def f_divergence(divergence: str = "gan", generator: str = "exact") -> Pair:
    """Nowozin et al. 2016, eq. 6: with F = E g_f(V(x)) - E f*(g_f(V(G(z)))), a lower bound of the divergence of data and model,
    D (the variational function V) lowers -F; G lowers F (``generator="exact"``) or, as their section 3.2 proposes,
    -E g_f(V(G(z))) (``"alternative"``). ``divergence``: a name in ``DIVERGENCES``. ValueError for others.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence='{divergence}': must be one of {', '.join(DIVERGENCES)}")
    if generator not in ("exact", "alternative"):
        raise ValueError(f"generator='{generator}': must be exact or alternative")
    _, output, _, composed = DIVERGENCES[divergence]
    by = composed if generator == "exact" else output
    return Pair(
        lambda real, fake: composed(fake.float()).mean() - output(real.float()).mean(),
        lambda real, fake: -by(fake.float()).mean(),
    )
