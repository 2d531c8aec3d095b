"""Improved GAN's networks and the two tricks that are layers, each also as a wrapper around any other network.

T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for Training GANs, 2016, arXiv
1606.03498, as in the authors' code (``mnist_svhn_cifar10``, ``imagenet/model.py``). D gives a logit for each class; that of
"fake" is fixed at 0, so that its score as a plain discriminator is the logits' log-sum-exp.
Where we differ: that code's generators always normalize with the batch's statistics, ours with running averages in eval mode.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.networks import weight_norm as wn
from zoo.networks.autoencoder import Autoencoder
from zoo.networks.layers import Linear, doublings
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


class MinibatchFeatures(nn.Module):
    """[N, inputs] -> [N, inputs + kernels]: appends o_b(x_i) = sum over j of exp(-||M_ib - M_jb||_1) + bias_b, where M_i is
    x_i times a tensor [inputs, kernels, dims] (section 3.2). As in the code j runs over the others only, each column of
    the tensor has a scale of its own, and the bias starts at -1; a ``measuring`` pass sets scales and biases from data.
    """

    mixes_batch = True

    def __init__(self, inputs: int, kernels: int = 100, dims: int = 5):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, kernels, dims) * 0.05)
        self.log_scale = nn.Parameter(torch.zeros(kernels, dims))
        self.bias = nn.Parameter(-torch.ones(kernels))
        self.measuring = False

    def distances(self, x: Tensor) -> Tensor:
        """The L1 distances [N, N, kernels]; to itself each sample is at 10^6."""
        T = self.weight * (self.log_scale.exp() * (self.weight.square().sum(0) + 1e-12).rsqrt())
        M = (x @ T.flatten(1)).unflatten(1, T.shape[1:])  # [N, kernels, dims]
        apart = sum((M[:, None, :, c] - M[None, :, :, c]).abs() for c in range(T.shape[2]))
        return apart + 1e6 * torch.eye(len(x), device=x.device, dtype=apart.dtype)[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        apart = self.distances(x)
        if self.measuring:
            nearest = 0.5 * apart.amin(1).mean(0).clamp(min=1e-3)  # [kernels]
            self.log_scale.sub_(nearest.log()[:, None])
            apart = apart / nearest
            self.bias.copy_(-(-apart).exp().sum(1).mean(0))
        return torch.cat([x, (-apart).exp().sum(1) + self.bias], 1)


class Classes(nn.Module):
    """A discriminator with ``logits(x)`` [N, classes]; its score is their log-sum-exp: exp(score) = sum exp(logits)."""

    def features(self, x: Tensor) -> Tensor:
        """What feature matching compares, [N, F]."""
        return self.layers(x.flatten(1) if self.flat else x)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).logsumexp(1)

    def initialize(self, x: Tensor) -> None:
        """Set the scales of the weights from images."""
        wn.set_scales(self, x)


@NETWORKS.register("improved-gan-mlp-generator")
class ImprovedMlpGenerator(nn.Module):
    """z [N, latent] -> digits [N, channels, H, W] in (0, 1): linear layers with batch norm (no gain) and softplus, a
    weight-normalized one with a learned gain."""

    classes = 0

    def __init__(self, channels: int = 1, resolution: int = 28, latent: int = 100, hidden: Sequence[int] = (500, 500)):
        super().__init__()
        self.latent, self.shape = latent, (channels, resolution, resolution)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise((latent, *hidden)):
            layers += [nn.Linear(i, o, bias=False), ShiftNorm(o), nn.Softplus()]
            nn.init.xavier_uniform_(layers[-3].weight)
        self.layers = nn.Sequential(*layers)
        self.output = wn.Linear(hidden[-1], math.prod(self.shape), 0.05, learned=True)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("improved-gan-mlp-discriminator")
class ImprovedMlpDiscriminator(Classes):
    """Digits [N, channels, H, W] -> score [N], ``logits`` [N, classes]. Weight-normalized ReLU layers whose gains stay as data
    set them; noise of deviation .3 on the pixels and .5 after each hidden layer."""

    flat = True

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
        self.head = nn.Sequential(wn.Noise(0.5), wn.Linear(hidden[-1], classes, 0.1, learned=True))


@NETWORKS.register("improved-gan-generator")
class ImprovedGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in (-1, 1): a linear layer to 4 ``width`` maps, 5x5
    transposed convolutions of 2 and 1 times ``width``, with batch norm (no gain) and ReLU, a weight-normalized one."""

    classes = 0

    def __init__(self, channels: int = 3, resolution: int = 32, latent: int = 100, width: int = 128):
        super().__init__()
        side = doublings(resolution, 3, "improved-gan-generator")
        self.latent = latent
        units = 4 * width * side * side
        layers = [nn.Linear(latent, units, bias=False), ShiftNorm(units), nn.ReLU()]
        layers.append(nn.Unflatten(1, (4 * width, side, side)))
        for i, o in ((4 * width, 2 * width), (2 * width, width)):
            layers += [nn.ConvTranspose2d(i, o, 5, 2, 2, 1, bias=False), ShiftNorm(o, maps=True), nn.ReLU()]
        for m in layers:
            if isinstance(m, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0.0, 0.05)
        self.layers = nn.Sequential(*layers)
        self.output = wn.ConvTranspose2d(width, channels, 0.05, target=0.1)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).tanh()

    def initialize(self, z: Tensor) -> None:
        """Set the last layer's scales from noise."""
        wn.set_scales(self, z)


@NETWORKS.register("improved-gan-discriminator")
class ImprovedDiscriminator(Classes):
    """Images [N, channels, resolution, resolution] -> score [N], ``logits`` [N, classes].

    Nine weight-normalized convolutions of 1 and 2 times ``width`` maps, leaky ReLU of slope .2, the mean over positions.
    ``minibatch``: kernels of the layer that compares the samples of a batch; then the pixels get noise of deviation .2
    in place of dropout. Real and fake images come in separate passes there.
    """

    flat = False

    def __init__(self, channels: int = 3, resolution: int = 32, classes: int = 10, width: int = 96, minibatch: int = 0):
        super().__init__()
        if doublings(resolution, 2, "improved-gan-discriminator") < 3:
            raise ValueError(f"improved-gan-discriminator can't do resolution {resolution}: take 12 or more")

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
        self.head = nn.Sequential(across, wn.Linear(v + minibatch, classes, 0.05, learned=True, target=0.1))


# The tricks around other networks -------------------------------------------------------------------------------------


@NETWORKS.register("minibatch-discriminator")
class MinibatchDiscriminator(nn.Module):
    """Any discriminator with ``features``, and after them minibatch features and a linear head of their own: x -> score [N].

    ``network``: Spec of the discriminator, whose own head goes. ``kernels``, ``dims``: of the comparison. ValueError where more
    would go with the head: what D is told of classes, or the image that an autoencoder gives back.
    """

    classes = 0

    def __init__(self, network: Spec, channels: int, resolution: int, kernels: int = 100, dims: int = 5):
        super().__init__()
        self.network = NETWORKS.build(network, defaults={"channels": channels, "resolution": resolution})
        if getattr(self.network, "classes", 0):
            raise ValueError(
                f"minibatch-discriminator: network '{network.name}' takes classes, which its features do not know; "
                f"take one without"
            )
        if isinstance(self.network, Autoencoder):
            raise ValueError(
                f"minibatch-discriminator: network '{network.name}' gives back images, not a score; take one that scores"
            )
        if not hasattr(self.network, "features"):
            raise ValueError(f"minibatch-discriminator: network '{network.name}' has no features to compare")
        if hasattr(self.network, "head"):
            del self.network.head
        shape = (channels, resolution, resolution) if resolution else (channels,)
        trial = copy.deepcopy(self.network).to("meta")
        found = trial.features(torch.empty(2, *shape, device="meta")).flatten(1).shape[1]
        self.across = MinibatchFeatures(found, kernels, dims)
        self.head = Linear(found + kernels, 1)

    def features(self, x: Tensor) -> Tensor:
        """x -> the network's features, laid flat, and what tells samples apart: [N, F + kernels]."""
        return self.across(self.network.features(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)

    def initialize(self, x: Tensor) -> None:
        """Set the scales of the comparison from images."""
        wn.set_scales(self, x)


class VirtualNorm(nn.Module):
    """A batch norm made virtual: a sample is normalized with the mean and mean square of ``rows`` reference samples, which lead
    the batch, and its own, counted as one more; the reference with its own alone. Gain and bias are those of the norm."""

    def __init__(self, norm: _BatchNorm, rows: int):
        super().__init__()
        self.rows, self.eps = rows, norm.eps
        self.norm = norm  # left with running averages of 0 and 1, and so with nothing to do but gain and bias
        norm.reset_running_stats()
        norm.eps = 1e-12  # 1 / sqrt(1 + eps) is 1; torch before 2.14 refuses 0
        norm.eval()

    def train(self, mode: bool = True) -> VirtualNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor, *rest: Tensor | None) -> Tensor:
        """x [rows + N, C, ...] -> the same shape. ``rest``: what the norm takes besides (classes)."""
        over = list(range(2, x.dim()))
        own = torch.stack([x, x.square()])
        own = own.mean([d + 1 for d in over], keepdim=True) if over else own  # [2, rows + N, C, 1, 1]
        reference = own[:, : self.rows].mean(1, keepdim=True)
        share = 1.0 / (self.rows + 1)
        mixed = share * own[:, self.rows :] + (1 - share) * reference
        mean, square = torch.cat([reference.expand_as(own[:, : self.rows]), mixed], 1)
        h = (x - mean) * ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
        return self.norm(h, *rest)


@NETWORKS.register("virtual-batch-norm")
class VirtualBatchNorm(nn.Module):
    """Any generator with virtual batch norm in place of batch norm (section 3.5): z [N, latent] (and y) -> what it makes.

    ``network``: Spec of the generator. ``reference``: samples that are normalized with, and whose noise is drawn once,
    before the first round; they go through the network, as it is, ahead of each batch. An image depends on no other.
    """

    def __init__(self, network: Spec, channels: int, resolution: int, reference: int = 64):
        super().__init__()
        self.network = NETWORKS.build(network, defaults={"channels": channels, "resolution": resolution})
        self.latent, self.classes = self.network.latent, getattr(self.network, "classes", 0)
        found = 0
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm):
                    setattr(module, name, VirtualNorm(child, reference))
                    found += 1
        if not found:
            raise ValueError(f"virtual-batch-norm: network '{network.name}' has no batch norm")
        self.register_buffer("reference", torch.randn(reference, self.latent))
        self.register_buffer("reference_y", torch.arange(reference) % max(self.classes, 1))

    def initialize(self, z: Tensor) -> None:
        """Take the reference's noise from the prior's z [>= reference, latent], and let the network set itself from all of it."""
        self.reference.copy_(z[: len(self.reference)])
        if hasattr(self.network, "initialize"):
            self.network.initialize(z)  # the reference leads it

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        classes = {"y": torch.cat([self.reference_y, y])} if self.classes and y is not None else {}
        made = self.network(torch.cat([self.reference.to(z.dtype), z]), **classes)
        n = len(self.reference)
        return tuple(x[n:] for x in made) if isinstance(made, tuple) else made[n:]
