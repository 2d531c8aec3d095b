"""Penalties: terms of a player's loss beside the adversarial one, scalars in float32.

``penalty(discriminate, real, fake, batch)``: with a game's :class:`~zoo.discriminate.Discriminate`, or, in a training
loop of one's own, with any network D that returns scores, and tensors::

    penalty = zoo.penalties.GradientPenalty()
    loss = D(fake).mean() - D(real).mean() + penalty.weight * penalty(D, real, fake)

Its ``weight`` is a buffer, so that a schedule can change it (``game.penalties.0.weight``) and checkpoints include it.
Gradients of D with respect to its input use ``torch.func``, which torch.compile can trace.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo import parallel
from zoo.discriminate import Discriminate, Given, Inputs, call, keep_running_averages, total_score
from zoo.game import Batch
from zoo.networks.stylegan import cuts
from zoo.registry import PENALTIES

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "Drift",
    "FeatureMatching",
    "GradientPenalty",
    "HistoricalAveraging",
    "Orthogonal",
    "PathLength",
    "Penalty",
    "PullingAway",
    "gradient_at",
    "input_gradient",
]  # fmt: skip


class Penalty(nn.Module):
    """The game adds ``weight * penalty(discriminate, real, fake, batch)`` to the loss of ``player``.

    ``every``: it is computed only in rounds that are a multiple of it (lazy regularization; see the game's turns).
    ``batch``: samples in such a turn of G's, if the paper has its own number.
    ``reals``: the real images that it needs in G's turn: None, the ``"last"`` ones of D's turn or ``"fresh"`` ones.
    ``gradients``: at which images, ``"real"`` and ``"fake"``, it needs the gradient of D's score, which the game then
    computes with the pass that it makes anyway. ``needs``: names of networks that it gets as keyword arguments
    (``("G",)`` for a penalty of G's weights).
    """

    player: str = "D"
    weight: Tensor
    batch: int | None = None
    reals: Literal["last", "fresh"] | None = None
    gradients: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __init__(self, weight: float, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"game.penalties: every={every}: must be at least 1 round")
        self.register_buffer("weight", torch.tensor(float(weight)))
        self.every = every

    def extra_repr(self) -> str:
        return f"player={self.player!r}, every={self.every}"


Network = Discriminate | nn.Module


def inputs(images: Tensor | Inputs) -> Inputs:
    """Images as D's inputs; a tensor has no conditions."""
    return images if isinstance(images, Inputs) else Inputs(images)


def noise_of(batch: Batch | None, x: Tensor) -> Batch:
    """What a penalty draws its numbers from: the game's batch or, elsewhere, torch's global generator."""
    return Batch(len(x), device=x.device) if batch is None else batch


def input_gradient(discriminate: Network, x: Tensor, given: Given | None = None) -> Tensor:
    """dD(x)/dx for each sample, [N, ...], float32, with a graph to D's weights. ``given``: conditions by name.

    If D has batch norm, it is the gradient of the sum of all scores. The running averages are not updated.
    """

    def total(v: Tensor) -> Tensor:
        if isinstance(discriminate, nn.Module):
            return total_score(call(discriminate, v, given))
        return total_score(discriminate(v, given))

    with keep_running_averages(discriminate):
        return torch.func.grad(total)(x.detach()).float()


def gradient_at(discriminate: Network, images: Tensor | Inputs) -> Tensor:
    """As ``input_gradient`` at the images themselves: the gradient of the pass that is there or, if none is, of a new
    one."""
    x, given, _, gradient = inputs(images)
    return input_gradient(discriminate, x, given) if gradient is None else gradient


def features(discriminate: Network, images: Tensor | Inputs) -> Tensor:
    """The last hidden layer of D: that of the pass that is there or, if none is, of a new one. Raises ValueError if D
    has no ``features``."""
    x, given, output, _ = inputs(images)
    if output is not None and output.features is not None:
        return output.features
    if not isinstance(discriminate, nn.Module):
        return discriminate.features(x, given)
    compute: Any = getattr(discriminate, "features", None)
    if compute is None:
        kind = type(discriminate).__name__
        raise ValueError(f"penalty: must have a discriminator with features, got {kind}")
    result: Tensor = compute(x, given)
    return result


def norms(gradient: Tensor) -> Tensor:
    """The 2-norm of each sample, [N]. Its derivative at 0 is 0 (that of the root of a sum of squares is NaN)."""
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


@PENALTIES.register("gradient-penalty")
class GradientPenalty(Penalty):
    """Gulrajani et al. 2017, eq. 3: E (||grad D(u)|| - 1)^2 at u = x + alpha (fake - x), with one alpha ~ U(0, 1) per
    sample; two-sided. It needs as many fakes as reals; conditions are those of the reals.

    ``target``: of the norm, gamma; the penalty is then E (||grad D(u)|| - gamma)^2 / gamma^2 (PGGAN's code). Raises
    ValueError unless it is above 0.
    """

    def __init__(self, weight: float = 10.0, every: int = 1, target: float = 1.0):
        super().__init__(weight, every)
        if not target > 0:
            raise ValueError(f"target={target}: must be above 0")
        self.target = target

    def forward(
        self, discriminate: Network, real: Tensor | Inputs, fake: Tensor | Inputs, batch: Batch | None = None
    ) -> Tensor:
        (x, given, *_), generated = inputs(real), inputs(fake).x.detach()
        alpha = noise_of(batch, x).rand(*[1] * (x.dim() - 1))  # [N, 1, 1, 1]
        length = norms(input_gradient(discriminate, x + alpha * (generated - x), given))
        return (length / self.target - 1.0).square().mean()


@PENALTIES.register("drift")
class Drift(Penalty):
    """Karras et al. 2017, appendix A.1: E D(x)^2, which keeps the scores of a critic near 0."""

    def __init__(self, weight: float = 0.001):
        super().__init__(weight)

    def forward(
        self,
        discriminate: Network,
        real: Tensor | Inputs,
        fake: Tensor | Inputs | None = None,
        batch: Batch | None = None,
    ) -> Tensor:
        x, given, output, _ = inputs(real)
        if output is None:
            output = call(discriminate, x, given) if isinstance(discriminate, nn.Module) else discriminate(x, given)
        return torch.stack([s.float().square().mean() for s in output.scores.values()]).sum()


@PENALTIES.register("pulling-away")
class PullingAway(Penalty):
    """Zhao et al. 2016, section 2.4: the mean over pairs i != j of fakes of the squared cosine between their features
    in D (``D.features``; those of an autoencoder are its codes). In [0, 1]; a term of G's loss, for diversity.

    With several processes the pairs are those within each process's samples; with ``sync`` those of all samples.
    """

    player = "G"
    whole_batch = "pulling-away"

    def __init__(self, weight: float = 0.1, sync: bool = False):
        super().__init__(weight)
        self.sync = sync

    def forward(
        self, discriminate: Network, real: Tensor | Inputs | None, fake: Tensor | Inputs, batch: Batch | None = None
    ) -> Tensor:
        codes = features(discriminate, fake)
        unit = normalize(codes.float().flatten(1), dim=1)  # a code of zeros is orthogonal to all
        if self.sync:
            unit = parallel.gather_with_gradient(unit)
        n = len(unit)
        cosines = (unit @ unit.T).square()
        return (cosines.sum() - cosines.diagonal().sum()) / max(n * (n - 1), 1)


@PENALTIES.register("dragan")
class DRAGAN(Penalty):
    """Kodali et al. 2017: E (||grad D(u)|| - 1)^2 at points u near the reals; it does not use the fakes.

    Raises ValueError for other values of ``noise``, and for "normal" without a ``size``.

    Args:
        weight, every: see :class:`Penalty`.
        noise: ``"normal"`` is the paper's, u = x + N(0, size^2 I) (its c is ``size`` squared). ``"uniform"`` is that of
            the authors' code, which is commonly used: u = x + alpha size s v, with s the standard deviation of all
            values of the batch, v ~ U(0, 1) per value and one alpha ~ U(0, 1) per sample; it only increases values.
        size: of the neighborhood: in units of s for ``"uniform"`` (by default 0.5), in the images' units for
            ``"normal"``.
    """

    def __init__(self, weight: float = 10.0, every: int = 1, noise: str = "uniform", size: float | None = None):
        super().__init__(weight, every)
        if noise not in ("uniform", "normal"):
            raise ValueError(f"noise='{noise}': must be uniform (the authors' code) or normal (the paper)")
        if noise == "normal" and size is None:
            raise ValueError(
                "size=None: must be a standard deviation in the images' units, such as 0.1, for noise='normal'"
            )
        self.noise, self.size = noise, 0.5 if size is None else size
        self.whole_batch = "the standard deviation of DRAGAN's batch" if noise == "uniform" else ""

    def near(self, x: Tensor, batch: Batch | None = None) -> Tensor:
        """Points near x [N, ...], of its shape."""
        batch = noise_of(batch, x)
        if self.noise == "normal":
            return x + self.size * batch.randn(*x.shape[1:])
        s = parallel.mean((x - parallel.mean(x.mean())).square().mean()).sqrt()  # of all processes' samples
        v, alpha = batch.rand(*x.shape[1:]), batch.rand(*[1] * (x.dim() - 1))
        return x + alpha * self.size * s * v

    def forward(
        self,
        discriminate: Network,
        real: Tensor | Inputs,
        fake: Tensor | Inputs | None = None,
        batch: Batch | None = None,
    ) -> Tensor:
        x, given, *_ = inputs(real)
        return (norms(input_gradient(discriminate, self.near(x, batch), given)) - 1.0).square().mean()


@PENALTIES.register("r1")
class R1(Penalty):
    """Mescheder et al. 2018, eq. 9: 1/2 E ||grad D(x)||^2 at the reals."""

    gradients = ("real",)

    def __init__(self, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(
        self,
        discriminate: Network,
        real: Tensor | Inputs,
        fake: Tensor | Inputs | None = None,
        batch: Batch | None = None,
    ) -> Tensor:
        return 0.5 * gradient_at(discriminate, real).flatten(1).square().sum(1).mean()


@PENALTIES.register("r2")
class R2(Penalty):
    """Mescheder et al. 2018, eq. 10: 1/2 E ||grad D(G(z))||^2 at the fakes."""

    gradients = ("fake",)

    def __init__(self, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(
        self, discriminate: Network, real: Tensor | Inputs | None, fake: Tensor | Inputs, batch: Batch | None = None
    ) -> Tensor:
        return 0.5 * gradient_at(discriminate, fake).flatten(1).square().sum(1).mean()


@PENALTIES.register("feature-matching")
class FeatureMatching(Penalty):
    """Salimans et al. 2016, section 3.1: the distance between the means of D's features over G's images and over fresh
    reals.

    ``distance``: ``"squared"`` or ``"absolute"``, averaged over the features, as in the authors' code (the paper's is
    the sum of squares). D must have ``features``.
    """

    player = "G"
    reals = "fresh"
    whole_batch = "feature matching"

    def __init__(self, weight: float = 1.0, distance: str = "squared"):
        super().__init__(weight)
        if distance not in ("squared", "absolute"):
            raise ValueError(f"distance={distance!r}: must be 'squared' or 'absolute'")
        self.distance = distance

    def forward(
        self, discriminate: Network, real: Tensor | Inputs, fake: Tensor | Inputs, batch: Batch | None = None
    ) -> Tensor:
        # Means over the samples of all processes
        of_real, of_fake = (
            parallel.mean_with_gradient(features(discriminate, images).float().mean(0)) for images in (real, fake)
        )
        difference = of_fake - of_real
        return difference.square().mean() if self.distance == "squared" else difference.abs().mean()


@PENALTIES.register("historical-averaging")
class HistoricalAveraging(Penalty):
    """Salimans et al. 2016, section 3.3: ||theta - 1/t sum theta[i]||^2 over the player's weights; i runs over its
    steps up to and including the current one. The authors published no code for it, and the paper states no weight.

    Raises ValueError if the game has no network ``player``.
    """

    average: Tensor
    steps: Tensor

    def __init__(self, networks: Mapping[str, nn.Module], weight: float = 1.0, player: str = "D"):
        super().__init__(weight)
        if player not in networks:
            raise ValueError(f"player='{player}': must be one of {', '.join(networks)}")
        self.player, self.needs = player, (player,)
        self.register_buffer("average", torch.zeros_like(flat(networks[player])))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        discriminate: Network | None,
        real: Tensor | Inputs | None,
        fake: Tensor | Inputs | None,
        batch: Batch | None = None,
        **networks: nn.Module,
    ) -> Tensor:
        theta = flat(networks[self.player])
        with torch.no_grad():
            self.steps.add_(1)
            self.average.add_((theta - self.average) / self.steps)
        return (theta - self.average).float().square().sum()


@PENALTIES.register("orthogonal")
class Orthogonal(Penalty):
    """Brock et al. 2018, eq. 3 (BigGAN): the sum over G's layers of ||W W^T * (1 - I)||_F^2, the inner products of
    different rows of W [out, the rest]; the rows' lengths are free. Embeddings are left out.

    The authors' PyTorch code adds half of this gradient to G's.
    """

    player, needs = "G", ("G",)

    def __init__(self, weight: float = 1e-4):
        super().__init__(weight)

    def forward(
        self,
        discriminate: Network | None,
        real: Tensor | Inputs | None,
        fake: Tensor | Inputs | None,
        batch: Batch | None = None,
        *,
        G: nn.Module,
    ) -> Tensor:
        layers = [m for m in G.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
        assert layers, "a network without layers"
        kind = layers[0].weight.device.type
        with contextlib.nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # sums in float32
            return torch.stack([products_of_rows(m.weight.float().flatten(1)) for m in layers]).sum()


@PENALTIES.register("path-length")
class PathLength(Penalty):
    """Karras et al. 2019, section 3.2 (StyleGAN2): E (l - a)^2 with l the length of the gradient of (image . y) with
    respect to the styles, for y ~ N(0, 1 / (H W)): the root of the mean over the styles of its squared norm. a is the
    running mean of l, in which this batch already counts. Of a G with styles; its noise and images are its own.

    Args:
        weight, every: see :class:`Penalty`.
        batch: samples; None: as many as the game's batch has.
        mixing: the probability of two styles in the images.
    """

    decay = 0.99  # of the running mean
    player, needs, whole_batch = "G", ("G",), "the mean path length"
    mean: Tensor

    def __init__(
        self,
        weight: float = 2.0,
        every: int = 4,
        batch: int | None = None,
        mixing: float = 0.9,
    ):
        super().__init__(weight, every)
        self.batch, self.mixing = batch, mixing
        self.register_buffer("mean", torch.zeros(()))

    def forward(
        self,
        discriminate: Network | None,
        real: Tensor | Inputs | None,
        fake: Tensor | Inputs | None,
        batch: Batch | None = None,
        *,
        G: Any,
    ) -> Tensor:
        batch = Batch(self.batch or 4, device=self.mean.device) if batch is None else batch
        y = batch.randint(G.classes) if G.classes else None
        noise = {name: batch.randn(*shape) for name, shape in G.noise_shapes.items()}
        z, second, cut = batch.randn(G.latent), None, None
        if self.mixing:
            second, cut = batch.randn(G.latent), cuts(batch.once(2), G.style_count, self.mixing)
        styles = G.styles(z, y, second, cut)  # [N, styles, w]
        direction = batch.randn(*G.image_shape)  # [N, C, H, W]

        def along(ws: Tensor) -> Tensor:
            images = G.synthesis(ws, noise)
            return (images * direction / math.sqrt(images.shape[2] * images.shape[3])).sum()

        slopes = torch.func.grad(along)(styles).float()
        lengths = slopes.square().sum(2).mean(1).sqrt()  # [N]
        mean = torch.lerp(self.mean, parallel.mean_with_gradient(lengths.mean()).to(self.mean.dtype), 1 - self.decay)
        self.mean.copy_(mean.detach())
        return (lengths - mean).float().square().mean()


def products_of_rows(w: Tensor) -> Tensor:
    """The sum of squares of the inner products of different rows of w [m, n], a scalar."""
    if len(w) <= w.shape[1]:
        gram = w @ w.T
        return (gram - gram.diagonal().diag()).square().sum()
    # ||w w^T|| = ||w^T w||: the smaller of the two. More rows than columns are far from orthogonal, so that the
    # difference is not one of rounding errors.
    return (w.T @ w).square().sum() - w.square().sum(1).square().sum()


def flat(network: nn.Module) -> Tensor:
    """All weights of a network as one vector."""
    return torch.cat([p.flatten() for p in network.parameters()])
