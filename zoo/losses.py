"""Adversarial losses: pairs of functions of D's raw scores, D's loss and G's loss.

A high score means real; a game whose D returns energies passes their negatives. Scores may have any shape (patch
discriminators return maps); every loss is a mean over all of them, in float32. A new loss is one function here (or in
another distribution's ``zoo.losses`` entry point) and a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from zoo import parallel
from zoo.registry import LOSSES, Spec

__all__ = [
    "BEGAN", "DIVERGENCES", "Divergence", "Pair", "f_divergence", "hinge", "least_squares", "margin", "minimax",
    "non_saturating", "relativistic", "wasserstein",
]  # fmt: skip


class Pair(NamedTuple):
    """``d(real, fake)`` is D's loss, ``g(real, fake)`` is G's, of the scores of real and fake images; ``real`` may be
    None in G's loss unless ``relative``.

    ``relative``: G's loss depends on the scores of reals, so its turn needs real data. ``whole_batch``: the loss, in
    words, if it is no mean over the batch (see :func:`zoo.game.whole_batch_parts`), else "".

    A loss with memory is an ``nn.Module`` with the same attributes, buffers, and ``update(real, fake)``, which is
    called without gradient after each step of G and returns what is logged.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor | None, Tensor], Tensor]
    relative: bool = False
    whole_batch: str = ""


@LOSSES.register("minimax")
def minimax(smooth: float = 1.0, scale: float = 1.0) -> Pair:
    """Goodfellow et al. 2014, eq. 1; the scores are D's logits: D minimizes -E log D(x) - E log(1 - D(G(z))), G
    minimizes E log(1 - D(G(z))), which saturates if D is confident.

    ``smooth``: D's target for reals (one-sided label smoothing, Salimans et al. 2016, 3.4). ``scale``: factor of D's
    loss.
    """
    return Pair(_cross_entropy(smooth, scale), lambda real, fake: -softplus(fake.float()).mean())


@LOSSES.register("non-saturating")
def non_saturating(smooth: float = 1.0, scale: float = 1.0) -> Pair:
    """As minimax for D; G minimizes -E log D(G(z)) (Goodfellow et al. 2014, section 3, end). Arguments as
    ``minimax``."""
    return Pair(_cross_entropy(smooth, scale), lambda real, fake: softplus(-fake.float()).mean())


def _cross_entropy(smooth: float, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    def d(real: Tensor, fake: Tensor) -> Tensor:
        # -(s log D + (1 - s) log(1 - D)) = softplus(-l) + (1 - s) l
        real, fake = real.float(), fake.float()
        loss_real = softplus(-real).mean()
        if smooth != 1.0:
            loss_real = loss_real + (1.0 - smooth) * real.mean()
        return scale * (loss_real + softplus(fake).mean())

    return d


@LOSSES.register("least-squares")
def least_squares(a: float = 0.0, b: float = 1.0, c: float = 1.0) -> Pair:
    """Mao et al. 2017, eq. 2: D minimizes 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2, G minimizes 1/2 E (D(G(z)) -
    c)^2. The Pearson chi^2 form is a = -1, b = 1, c = 0."""
    return Pair(
        lambda real, fake: 0.5 * (real.float() - b).square().mean() + 0.5 * (fake.float() - a).square().mean(),
        lambda real, fake: 0.5 * (fake.float() - c).square().mean(),
    )


@LOSSES.register("wasserstein")
def wasserstein() -> Pair:
    """Arjovsky et al. 2017, algorithm 1, with the paper's sign: D minimizes E f(G(z)) - E f(x), G minimizes
    -E f(G(z))."""
    return Pair(
        lambda real, fake: fake.float().mean() - real.float().mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("margin")
def margin(margin: float = 10.0) -> Pair:
    """Zhao et al. 2016, eq. 1 and 2, with the energy D(x) = -score, which must not be negative: D minimizes
    E D(x) + E max(0, margin - D(G(z))), G minimizes E D(G(z))."""
    return Pair(
        lambda real, fake: relu(margin + fake.float()).mean() - real.float().mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("hinge")
def hinge() -> Pair:
    """Miyato et al. 2018, eq. 16 and 17: D minimizes E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), G minimizes
    -E D(G(z))."""
    return Pair(
        lambda real, fake: relu(1.0 - real.float()).mean() + relu(1.0 + fake.float()).mean(),
        lambda real, fake: -fake.float().mean(),
    )


@LOSSES.register("relativistic")
def relativistic(base: Spec = Spec("non-saturating"), average: bool = True, scale: float = 0.5) -> Pair:
    """Jolicoeur-Martineau 2018: D estimates how much more realistic real images are than fakes; G's loss is D's with
    real and fake exchanged. With the d of ``base``, D minimizes scale * d(C(x) - C(G(z)), C(G(z)) - C(x)).

    RSGAN: ``average=False``. RaSGAN: the defaults. RaHingeGAN: ``base=Spec("hinge")``. RaLSGAN:
    ``base=Spec("least-squares", a=-1.0, b=1.0), scale=1.0``, since that base includes the factor 1/2.

    Args:
        base: the loss whose d is used. Raises ValueError if it is itself relative.
        average: subtract the mean score of the other kind (section 4.2, RaGAN), or, if False, the score at the same
            index in the batch (section 4.1, RGAN; for a symmetric ``base``). Then the loss raises ValueError unless
            there are as many fakes as reals.
        scale: factor of both losses; the authors' code halves the sum.
    """
    pair: Pair = LOSSES.build(base)
    if pair.relative or isinstance(pair, nn.Module):
        raise ValueError(f"loss.base='{base.name}': must be a loss that is not relative itself and has no memory")

    def d(real: Tensor, fake: Tensor) -> Tensor:
        real, fake = real.float(), fake.float()
        if average:
            c_real, c_fake = parallel.mean_with_gradient(real.mean()), parallel.mean_with_gradient(fake.mean())
        elif real.shape == fake.shape:
            c_real, c_fake = real, fake
        else:
            raise ValueError(f"loss.average=False: must be as many fakes as reals, got {len(fake)} and {len(real)}")
        return scale * pair.d(real - c_fake, fake - c_real)

    def g(real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None
        return d(fake, real)

    return Pair(d, g, relative=True, whole_batch="the mean score of the relativistic loss" if average else "")


@LOSSES.register("began")
class BEGAN(nn.Module):
    """Berthelot et al. 2017 (BEGAN), section 3.4, with the energy L(x) = -score, a mean absolute reconstruction error:
    D minimizes L(x) - k L(G(z)), G minimizes L(G(z)). After each step of G, k moves by ``rate`` (gamma L(x) - L(G(z)))
    within [0, 1]; it starts at 0.

    The log has ``k`` and ``convergence``, the paper's measure M = L(x) + |gamma L(x) - L(G(z))|. Raises ValueError for
    a ``gamma`` outside [0, 1].

    Args:
        gamma: the ratio of the energy of fakes to that of reals; low values give images that look more alike, high
            ones more diverse images.
        rate: of the controller of ``k`` (the paper's lambda_k).
    """

    k: Tensor
    relative, whole_batch = False, ""

    def __init__(self, gamma: float = 0.5, rate: float = 0.001):
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ValueError(f"game.loss.gamma={gamma}: must be from 0 to 1")
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.zeros(()))

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """D's loss."""
        return self.k * fake.float().mean() - real.float().mean()

    def g(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """G's loss."""
        return -fake.float().mean()

    def update(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The step of k, from the scores in D's turn of the reals and in G's turn of the fakes. Returns what is
        logged."""
        energy, of_fake = parallel.mean(-real.float().mean()), parallel.mean(-fake.float().mean())
        error = self.gamma * energy - of_fake
        self.k.copy_((self.k + self.rate * error).clamp(0, 1))
        return {"k": self.k.clone(), "convergence": energy + error.abs()}  # the buffer itself changes before it is read


class Divergence(NamedTuple):
    """An f-divergence D_f(P||Q) = E_Q f(p/q) and the parts of its variational bound; the functions are elementwise.

    ``f(u)`` is convex, with f(1) = 0 (except GAN's). ``output(v)`` is increasing and maps any real number into the
    domain of the ``conjugate`` f*(t) = sup_u (u t - f(u)). ``composed(v)`` is f*(output(v)) in a form that avoids
    overflow. The bound E_P output(V) - E_Q composed(V) equals D_f if output(V) = f'(p/q).
    """

    f: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    composed: Callable[[Tensor], Tensor]


def _identity(v: Tensor) -> Tensor:
    return v


def _conjugate_of_jeffrey(t: Tensor) -> Tensor:
    """f*(t) = u - 1 + log u for the u with f'(u) = log u + 1 - 1/u = t. With s = -log u that is e^s + s = 1 - t, so
    that e^s is Lambert's W(e^(1 - t)). The gradient is that of the last Newton step (first derivatives only)."""
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
    """Nowozin et al. 2016, eq. 6: with F = E g_f(V(x)) - E f*(g_f(V(G(z)))), a lower bound of the divergence between
    data and model, D (the variational function V) minimizes -F; G minimizes F (``generator="exact"``) or, as their
    section 3.2 proposes, -E g_f(V(G(z))) (``"alternative"``).

    ``divergence``: a name in ``DIVERGENCES``. Raises ValueError for other names.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence='{divergence}': must be one of {', '.join(DIVERGENCES)}")
    if generator not in ("exact", "alternative"):
        raise ValueError(f"generator='{generator}': must be exact or alternative")
    _, output, _, composed = DIVERGENCES[divergence]
    g = composed if generator == "exact" else output
    return Pair(
        lambda real, fake: composed(fake.float()).mean() - output(real.float()).mean(),
        lambda real, fake: -g(fake.float()).mean(),
    )
