"""Improved GAN's networks, and the two of its tricks that are layers, each also as a wrapper around other networks.

T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for Training GANs, 2016,
arXiv 1606.03498, as in the authors' code (``mnist_svhn_cifar10``, ``imagenet/model.py``). D returns a logit for each
class; the logit of "fake" is fixed at 0, so that D's score as a plain discriminator is the log-sum-exp of the others.

Differences from the paper:
- The code's generators always normalize with the batch's statistics, ours with running averages in eval mode.
"""

from __future__ import annotations

import abc
import copy
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo import parallel
from zoo.networks import weight_norm as wn
from zoo.networks.autoencoder import Autoencoder
from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import glorot, initialize, normal
from zoo.networks.layers import Linear, smallest_side
from zoo.registry import NETWORKS, Spec


class ShiftNorm(nn.Module):
    """Batch norm with a bias and no gain, of [N, C] or [N, C, H, W]."""

    def __init__(self, features: int, maps: bool = False):
        super().__init__()
        self.norm = (nn.BatchNorm2d if maps else nn.BatchNorm1d)(features, 1e-6, affine=False)
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return h + (self.shift[:, None, None] if h.dim() == 4 else self.shift)


class MinibatchFeatures(wn.DataDependent):
    """[N, inputs] -> [N, inputs + kernels]: appends o_b(x_i) = sum over j of exp(-||M_ib - M_jb||_1) + bias_b (section
    3.2).

    M_i is x_i times a tensor [inputs, kernels, dims]. As in the code, j runs over the other samples only, each column
    of the tensor has its own scale, and the bias starts at -1; a pass while ``initializing`` sets scales and biases.
    ``sync``: j runs over the samples of all processes, otherwise over those of this one.
    """

    mixes_batch = True
    whole_batch = "the layer of minibatch features"

    def __init__(self, inputs: int, kernels: int = 100, dims: int = 5, *, sync: bool = False):
        super().__init__()
        self.sync = sync
        self.weight = nn.Parameter(torch.randn(inputs, kernels, dims) * 0.05)
        self.log_scale = nn.Parameter(torch.zeros(kernels, dims))
        self.bias = nn.Parameter(-torch.ones(kernels))

    def distances(self, x: Tensor) -> Tensor:
        """The L1 distances [N, N, kernels]; the distance of a sample to itself is set to 10^6. With ``sync`` those to
        all processes' samples, [N, N x world, kernels]."""
        T = self.weight * (self.log_scale.exp() * (self.weight.square().sum(0) + 1e-12).rsqrt())
        M = (x @ T.flatten(1)).unflatten(1, T.shape[1:])  # [N, kernels, dims]
        others = parallel.gather_with_gradient(M) if self.sync else M
        distance = sum((M[:, None, :, c] - others[None, :, :, c]).abs() for c in range(T.shape[2]))
        oneself = torch.eye(len(others), device=x.device, dtype=distance.dtype)
        if self.sync:
            oneself = oneself[parallel.rank() * len(x) : (parallel.rank() + 1) * len(x)]
        return distance + 1e6 * oneself[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        distance = self.distances(x)
        if self.initializing:
            nearest = 0.5 * distance.amin(1).mean(0).clamp(min=1e-3)  # [kernels]
            self.log_scale.sub_(nearest.log()[:, None])
            distance = distance / nearest
            self.bias.copy_(-(-distance).exp().sum(1).mean(0))
        return torch.cat([x, (-distance).exp().sum(1) + self.bias], 1)


class ClassDiscriminator(Discriminator, abc.ABC):
    """A discriminator with ``logits(x)`` [N, classes]; its score is their log-sum-exp: exp(score) = sum exp(logits)."""

    layers: nn.Module

    @abc.abstractmethod
    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The features for feature matching, [N, F]."""

    def logits(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> logits of the classes [N, classes]."""
        return self.head(self.features(x))

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.head(h).logsumexp(1)

    def initialize(self, x: Tensor) -> None:
        """Data-dependent initialization of the weights' scales from images."""
        wn.initialize_scales(self, x)


@NETWORKS.register("improved-gan-mlp-generator")
class ImprovedGANMLPGenerator(nn.Module):
    """z [N, latent] -> digits [N, channels, H, W] in (0, 1): linear layers with batch norm (no gain) and softplus, a
    weight-normalized one with a learned gain."""

    classes = 0

    def __init__(self, channels: int = 1, resolution: int = 28, latent: int = 100, hidden: Sequence[int] = (500, 500)):
        super().__init__()
        self.latent, self.shape = latent, (channels, resolution, resolution)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise((latent, *hidden)):
            layers += [initialize(nn.Linear(i, o, bias=False), glorot()), ShiftNorm(o), nn.Softplus()]
        self.layers = nn.Sequential(*layers)
        self.output = wn.Linear(hidden[-1], math.prod(self.shape), 0.05, learn_gain=True)
        glorot()(self.output)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("improved-gan-mlp-discriminator")
class ImprovedGANMLPDiscriminator(ClassDiscriminator):
    """Digits [N, channels, H, W] -> score [N], ``logits`` [N, classes]. Weight-normalized ReLU layers, whose gains are
    not learned after the data-dependent initialization; noise of standard deviation .3 on the pixels and .5 after each
    hidden layer."""

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 10,
        hidden: Sequence[int] = (1000, 500, 250, 250, 250),
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for k, (i, o) in enumerate(itertools.pairwise((channels * resolution**2, *hidden))):
            layers += [wn.Noise(0.5 if k else 0.3), wn.Linear(i, o, 0.1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(wn.Noise(0.5), wn.Linear(hidden[-1], classes, 0.1, learn_gain=True))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, hidden[-1]]."""
        return self.layers(x.flatten(1))


@NETWORKS.register("improved-gan-generator")
class ImprovedGANGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in (-1, 1): a linear layer to 4 ``width`` maps, 5x5
    transposed convolutions of 2 and 1 times ``width``, with batch norm (no gain) and ReLU, a weight-normalized one."""

    classes = 0

    def __init__(self, channels: int = 3, resolution: int = 32, latent: int = 100, width: int = 128):
        super().__init__()
        side = smallest_side(resolution, 3, "improved-gan-generator")
        self.latent = latent
        units = 4 * width * side * side
        layers: list[nn.Module] = [nn.Linear(latent, units, bias=False), ShiftNorm(units), nn.ReLU()]
        layers.append(nn.Unflatten(1, (4 * width, side, side)))
        for i, o in ((4 * width, 2 * width), (2 * width, width)):
            layers += [nn.ConvTranspose2d(i, o, 5, 2, 2, 1, bias=False), ShiftNorm(o, maps=True), nn.ReLU()]
        self.layers = initialize(nn.Sequential(*layers), normal(0.05))
        self.output = wn.ConvTranspose2d(width, channels, 0.05, target=0.1)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).tanh()

    def initialize(self, z: Tensor) -> None:
        """Data-dependent initialization of the last layer's scales from noise."""
        wn.initialize_scales(self, z)


@NETWORKS.register("improved-gan-discriminator")
class ImprovedGANDiscriminator(ClassDiscriminator):
    """Images [N, channels, resolution, resolution] -> score [N], ``logits`` [N, classes].

    Nine weight-normalized convolutions of 1 and 2 times ``width`` maps, leaky ReLU of slope .2, the mean over
    positions. ``minibatch``: kernels of the minibatch features; with them the pixels get noise of standard deviation .2
    instead of dropout, and real and fake images come in separate passes.
    """

    def __init__(self, channels: int = 3, resolution: int = 32, classes: int = 10, width: int = 96, minibatch: int = 0):
        super().__init__()
        if smallest_side(resolution, 2, "improved-gan-discriminator") < 3:
            raise ValueError(f"resolution={resolution}: must be 12 or more for improved-gan-discriminator")

        def conv(i: int, o: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
            return [wn.Conv2d(i, o, kernel, stride, padding, 0.05), nn.LeakyReLU(0.2)]

        w, v = width, 2 * width
        self.layers = nn.Sequential(
            wn.Noise(0.2) if minibatch else nn.Dropout(0.2),
            *conv(channels, w), *conv(w, w), *conv(w, w, stride=2), nn.Dropout(0.5),
            *conv(w, v), *conv(v, v), *conv(v, v, stride=2), nn.Dropout(0.5),
            *conv(v, v, padding=0), *conv(v, v, 1, padding=0), *conv(v, v, 1, padding=0),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        across = MinibatchFeatures(v, minibatch) if minibatch else nn.Identity()
        self.head = nn.Sequential(across, wn.Linear(v + minibatch, classes, 0.05, learn_gain=True, target=0.1))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The mean of the last map over its positions, [N, 2 * width]."""
        return self.layers(x)


# The tricks around other networks -------------------------------------------------------------------------------------


@NETWORKS.register("minibatch-discriminator")
class MinibatchDiscriminator(Discriminator):
    """A discriminator with ``features``, with minibatch features and a linear head instead of its head: x -> score [N].

    Raises ValueError for networks that are more than features and a head: class-conditional ones and autoencoders.

    Args:
        network: Spec of the discriminator; its own head is removed.
        channels, resolution: of the images; ``resolution=0``: points.
        kernels, dims: of the minibatch features; with ``sync`` those of the samples of all processes.
    """

    def __init__(
        self,
        network: Spec,
        channels: int,
        resolution: int,
        kernels: int = 100,
        dims: int = 5,
        sync: bool = False,
    ):
        super().__init__()
        self.network = NETWORKS.build(network, defaults={"channels": channels, "resolution": resolution})
        if getattr(self.network, "classes", 0):
            raise ValueError(
                f"minibatch-discriminator: network '{network.name}' takes classes; must be one without classes"
            )
        if isinstance(self.network, Autoencoder):
            raise ValueError(
                f"minibatch-discriminator: network '{network.name}' returns images; must be one with a head"
            )
        if not hasattr(self.network, "features"):
            raise ValueError(
                f"minibatch-discriminator: network '{network.name}' has no features; must be one with features"
            )
        if hasattr(self.network, "head"):
            del self.network.head
        shape = (channels, resolution, resolution) if resolution else (channels,)
        meta = copy.deepcopy(self.network).to("meta")
        count = meta.features(torch.empty(2, *shape, device="meta")).flatten(1).shape[1]
        self.across = MinibatchFeatures(count, kernels, dims, sync=sync)
        self.head = Linear(count + kernels, 1)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> the network's features, flat, and the minibatch features: [N, F + kernels]."""
        return self.across(self.network.features(x).flatten(1))

    def initialize(self, x: Tensor) -> None:
        """Data-dependent initialization of the minibatch features' scales from images."""
        wn.initialize_scales(self, x)


class VirtualNorm(nn.Module):
    """Virtual batch norm (section 3.5) in place of a batch norm, whose gain and bias it takes.

    The first ``rows`` samples of a batch are the reference. A sample is normalized with the mean and mean square over
    the reference samples and itself, as one of rows + 1; the reference with those over itself alone.
    """

    def __init__(self, norm: _BatchNorm, rows: int):
        super().__init__()
        self.rows, self.eps = rows, norm.eps
        self.norm = norm  # in eval mode with a running mean of 0 and variance of 1, it applies gain and bias only
        norm.reset_running_stats()
        norm.eps = 1e-12  # 1 / sqrt(1 + eps) is 1; torch before 2.14 refuses 0
        norm.eval()

    def train(self, mode: bool = True) -> VirtualNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor, *rest: Tensor | None) -> Tensor:
        """x [rows + N, C, ...] -> the same shape. ``rest``: the norm's other inputs (classes)."""
        moments = torch.stack([x, x.square()])
        if x.dim() > 2:
            moments = moments.mean(list(range(3, x.dim() + 1)), keepdim=True)  # [2, rows + N, C, 1, 1]
        reference = moments[:, : self.rows].mean(1, keepdim=True)
        share = 1.0 / (self.rows + 1)
        mixed = share * moments[:, self.rows :] + (1 - share) * reference
        mean, square = torch.cat([reference.expand_as(moments[:, : self.rows]), mixed], 1)
        h = (x - mean) * ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
        return self.norm(h, *rest)


@NETWORKS.register("virtual-batch-norm")
class VirtualBatchNorm(nn.Module):
    """A generator with virtual batch norm in place of batch norm (section 3.5): z [N, latent] (and y) -> the
    generator's output.

    The noise of the reference samples is drawn once, before the first round; they pass the current network before
    each batch. An image does not depend on the others of its batch.

    Args:
        network: Spec of the generator.
        channels, resolution: of the images.
        reference: number of reference samples.
    """

    reference: Tensor
    reference_y: Tensor

    def __init__(self, network: Spec, channels: int, resolution: int, reference: int = 64):
        super().__init__()
        self.network = NETWORKS.build(network, defaults={"channels": channels, "resolution": resolution})
        self.latent, self.classes = self.network.latent, getattr(self.network, "classes", 0)
        norms = [
            (module, name, child)
            for module in self.network.modules()
            for name, child in module.named_children()
            if isinstance(child, _BatchNorm)
        ]
        if not norms:
            raise ValueError(
                f"virtual-batch-norm: network '{network.name}' has no batch norm; must be one with batch norm"
            )
        for module, name, child in norms:
            setattr(module, name, VirtualNorm(child, reference))
        self.register_buffer("reference", torch.randn(reference, self.latent))
        self.register_buffer("reference_y", torch.arange(reference) % max(self.classes, 1))

    def initialize(self, z: Tensor) -> None:
        """Take the reference's noise from the prior's z [``reference`` or more, latent]; then the network's own
        data-dependent initialization, if it has one, from all of z."""
        self.reference.copy_(z[: len(self.reference)])
        if hasattr(self.network, "initialize"):
            self.network.initialize(z)  # z starts with the reference

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        classes = {"y": torch.cat([self.reference_y, y])} if self.classes and y is not None else {}
        x = self.network(torch.cat([self.reference.to(z.dtype), z]), **classes)
        n = len(self.reference)
        return tuple(images[n:] for images in x) if isinstance(x, tuple) else x[n:]
