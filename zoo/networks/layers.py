"""Layers that several families share: resampling convolutions, spectral normalization, self-attention, class
conditions, statistics of the batch.

*Resampling.* Nearest x2 upsampling followed by a 3x3 convolution is one 4x4 transposed convolution of stride 2,
and a 3x3 convolution followed by 2x2 average pooling is one 4x4 convolution of stride 2: in both, the 4x4 kernel is the
sum of the four shifts of the 3x3 kernel. That is 16 multiply-adds instead of the 36 of two steps. A 1x1 convolution
commutes with both resamplings, so it runs at the smaller size. The parameter keeps its 3x3 shape: in files, in counts,
under spectral normalization.

*Spectral normalization.* Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial
Networks", 2018, arXiv 1802.05957, section 2 and algorithm 1. One power iteration per forward pass, from the buffer
``u``. Difference from the authors' code: in eval mode linear and embedding layers, like the convolutions, do not update
``u``.

*Self-attention.* Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative Adversarial Networks", 2018, arXiv
1805.08318, as in the authors' code (pooled keys and values, an output convolution), not as in the paper's figure.

*Statistics of the batch.* With ``sync`` batch norm and minibatch standard deviation take those of all processes'
samples, with gradient, so that two processes with four samples each compute what one with eight does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo import parallel
from zoo.networks.init import glorot


def spectral(weight: Tensor, u: Tensor, update: bool) -> Tensor:
    """``weight`` divided by its largest singular value as a matrix [out, the rest]; the gradient includes that of this
    value.

    ``u`` [out] is the left singular vector of the last pass; if ``update``, this pass's replaces it. Products are
    elementwise, which autocast leaves in float32.
    """
    # The order of the columns does not matter, and this one is a view if the weight is channels_last.
    W = weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight
    with torch.no_grad():
        v = F.normalize((W * u[:, None]).sum(0), dim=0, eps=1e-12)
        left = F.normalize((W * v).sum(1), dim=0, eps=1e-12)
        if update:  # with out=: torch.func's transforms refuse copy_ into a tensor of the enclosing scope
            torch.mul(left, 1.0, out=u)
    return weight / (left * (W * v).sum(1)).sum()


class InstanceNorm2d(nn.InstanceNorm2d):
    """Each map of each image [N, C, H, W] to mean 0 and variance 1, then gain and bias if ``affine``: a group norm with
    one map per group. PyTorch's own instance norm silently returns wrong gradients for one image (N = 1) if the next
    layer works in channels_last (2.14.1 on CPU)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)


class Spectral(nn.Module):
    """The option ``sn`` and the buffer ``u`` of a layer with spectral normalization."""

    weight: Tensor
    u: Tensor

    def normalize(self, sn: bool) -> None:
        self.sn = sn
        if sn:
            self.register_buffer("u", torch.randn(self.weight.shape[0]))

    def kernel(self) -> Tensor:
        """The weight that the layer applies."""
        return spectral(self.weight, self.u, self.training) if self.sn else self.weight


class Conv2d(nn.Conv2d, Spectral):
    """A 1x1 or 3x3 convolution that keeps height and width, after nearest x2 upsampling (``resample="up"``), before
    2x2 average pooling (``"down"``), or without resampling. Glorot-uniform weights times ``gain``, biases 0; ``sn``:
    spectral normalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, resample: str = "", sn: bool = False,
                 bias: bool = True, gain: float = 1.0):  # fmt: skip
        assert kernel in (1, 3) and resample in ("", "up", "down")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.resample = resample
        glorot(gain)(self)
        self.normalize(sn)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H, W], 2H x 2W after "up", H/2 x W/2 after "down"."""
        w = self.kernel()
        if not self.resample:
            return F.conv2d(x, w, self.bias, padding=self.padding)
        if self.kernel_size == (1, 1):
            if self.resample == "up":
                return F.interpolate(F.conv2d(x, w, self.bias), scale_factor=2.0)
            return F.conv2d(F.avg_pool2d(x, 2), w, self.bias)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * shifts(w.flip(2, 3)).transpose(0, 1), self.bias, stride=2, padding=1)
        return F.conv2d(x, shifts(w), self.bias, stride=2, padding=1)

    def extra_repr(self) -> str:
        return super().extra_repr() + f", resample={self.resample!r}, sn={self.sn}"


def shifts(w: Tensor) -> Tensor:
    """The mean of the four shifts of 3x3 kernels [O, I, 3, 3] inside 4x4 ones [O, I, 4, 4]."""
    # Average pooling with zero padding does exactly this; on CPU in channels_last it costs a tenth of pads and adds.
    # On CUDA its gradient is wrong in that layout (pytorch issue 188344, in 2.11).
    layout = torch.channels_last if w.device.type == "cpu" else torch.contiguous_format
    return F.avg_pool2d(w.contiguous(memory_format=layout), 2, stride=1, padding=1)


class Linear(nn.Linear, Spectral):
    """A linear layer with Glorot-uniform weights and zero biases."""

    def __init__(self, inputs: int, outputs: int, *, sn: bool = False, bias: bool = True):
        super().__init__(inputs, outputs, bias=bias)
        glorot()(self)
        self.normalize(sn)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs] -> [N, outputs]."""
        return F.linear(x, self.kernel(), self.bias)


class Embedding(nn.Embedding, Spectral):
    """A table of vectors, Glorot-uniform."""

    def __init__(self, entries: int, features: int, *, sn: bool = False):
        super().__init__(entries, features)
        glorot()(self)
        self.normalize(sn)

    def forward(self, y: Tensor) -> Tensor:
        """y int64 [N] -> [N, features]."""
        return F.embedding(y, self.kernel())


def require_classes(y: Tensor | None) -> Tensor:
    """``y``. Raises ValueError if it is None: the network is class-conditional."""
    if y is None:
        raise ValueError("y=None: must be an int64 tensor [N] of class numbers, since the network is class-conditional")
    return y


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization; with ``classes`` each class has its own gain and bias (Dumoulin et al. 2017, de Vries et al.
    2017), which start at 1 and 0, equal for all classes; without ``affine`` there are none. ``sync``: in training mode
    the statistics are those of all processes' samples, of which each must have as many."""

    def __init__(
        self,
        features: int,
        classes: int = 0,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        sync: bool = False,
    ):
        super().__init__(features, eps=eps, momentum=momentum, affine=affine and not classes)
        self.classes, self.sync = classes, sync
        if classes:
            self.gain = nn.Embedding(classes, features)
            self.shift = nn.Embedding(classes, features)
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x [N, C, H, W], y int64 [N] or None without classes -> [N, C, H, W]."""
        h = self.synchronized(x) if self.sync and self.training and parallel.world() > 1 else super().forward(x)
        if not self.classes:
            return h
        y = require_classes(y)
        return torch.addcmul(self.shift(y)[:, :, None, None], h, self.gain(y)[:, :, None, None])

    def synchronized(self, x: Tensor) -> Tensor:
        """As torch's batch norm of the samples of all processes; the statistics are computed in float32."""
        own = torch.stack(torch.var_mean(x.float(), (0, 2, 3), correction=0))[None]  # [1, 2, C]
        variances, means = parallel.gather_with_gradient(own).unbind(1)  # [processes, C] each
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        if self.track_running_stats:
            count = x.numel() // self.num_features * parallel.world()
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = (variance + self.eps).rsqrt()
        h = (x.float() - mean[:, None, None]) * scale[:, None, None]
        if self.affine:
            h = torch.addcmul(self.bias[:, None, None], h, self.weight[:, None, None])
        return h.to(x.dtype)


class MinibatchStandardDeviation(nn.Module):
    """Appends maps with the standard deviation of the features over the batch (Karras, Aila, Laine, Lehtinen,
    "Progressive Growing of GANs for Improved Quality, Stability, and Variation", 2018, arXiv 1710.10196, section 3):
    over the samples, for each feature and position, then averaged over features and positions to one number.

    As in the authors' code the batch of N is split into groups, of the samples i, i + N/group, i + 2N/group, ..., each
    with a number of its own.

    Args:
        group: samples in a group, at most; None: the whole batch, as in the paper.
        maps: how many maps to append, each for a consecutive share of the features (StyleGAN2's code).
        sync: the batch is that of all processes.
    """

    mixes_batch = True
    whole_batch = "the minibatch standard deviation"

    def __init__(self, group: int | None = 4, maps: int = 1, *, sync: bool = False):
        super().__init__()
        self.group, self.maps, self.sync = group, maps, sync

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> [N, C + maps, H, W]. Raises ValueError unless the groups have equally many samples."""
        own, side = len(x), x.shape[2:]
        whole = parallel.gather_with_gradient(x) if self.sync else x
        n = len(whole)
        group = n if self.group is None else min(self.group, n)
        if n % group or x.shape[1] % self.maps:
            raise ValueError(
                f"minibatch standard deviation: must have a multiple of {group} samples and of {self.maps} features, "
                f"got {n} and {x.shape[1]}"
            )
        grouped = whole.float().reshape(group, n // group, self.maps, -1)  # [group, groups, maps, features x H x W]
        deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean(2)  # [groups, maps]
        deviation = deviation.repeat(group, 1)[:, :, None, None].expand(-1, -1, *side)  # [n, maps, H, W]
        if self.sync:
            deviation = deviation[parallel.rank() * own : (parallel.rank() + 1) * own]
        return torch.cat([x, deviation.to(x.dtype)], 1)

    def extra_repr(self) -> str:
        return f"group={self.group}, maps={self.maps}, sync={self.sync}"


class SelfAttention(nn.Module):
    """SAGAN's attention block: x + gamma * output(attention(x) @ values), with max-pooled keys and values.

    Spectrally normalized 1x1 convolutions without biases; queries and keys have C/8 channels, values C/2. The scalar
    ``gamma`` (the code's sigma) starts at 0: the block starts as the identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        if channels < 8:
            raise ValueError(f"self-attention: must have at least 8 channels, got {channels}; increase the width")
        self.query = Conv2d(channels, channels // 8, 1, sn=True, bias=False)
        self.key = Conv2d(channels, channels // 8, 1, sn=True, bias=False)
        self.value = Conv2d(channels, channels // 2, 1, sn=True, bias=False)
        self.output = Conv2d(channels // 2, channels, 1, sn=True, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def attention(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> weights [N, HW, HW/4]; each row sums to 1. The dot products are not scaled."""
        q = rearrange(self.query(x), "n c h w -> n (h w) c")
        k = rearrange(F.max_pool2d(self.key(x), 2), "n c h w -> n c (h w)")
        return (q @ k).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W], H and W even -> the same shape."""
        v = rearrange(F.max_pool2d(self.value(x), 2), "n c h w -> n (h w) c")
        o = rearrange(self.attention(x) @ v, "n (h w) c -> n c h w", h=x.shape[2])
        return torch.addcmul(x, self.gamma, self.output(o))


class ProjectionHead(nn.Module):
    """Features to a score: w.phi (+ b), and with ``classes`` + e_y.phi (Miyato and Koyama, "cGANs with Projection
    Discriminator", 2018, arXiv 1802.05637, equation 3)."""

    def __init__(self, features: int, classes: int = 0, *, sn: bool = False, bias: bool = True):
        super().__init__()
        self.classes = classes
        self.linear = Linear(features, 1, sn=sn, bias=bias)
        if classes:
            self.embedding = Embedding(classes, features, sn=sn)

    def forward(self, phi: Tensor, y: Tensor | None = None) -> Tensor:
        """phi [N, features], y int64 [N] or None without classes -> scores [N]."""
        score = self.linear(phi)[:, 0]
        return score + (self.embedding(require_classes(y)) * phi).sum(1) if self.classes else score


def smallest_side(resolution: int, halvings: int, network: str) -> int:
    """The side of the smallest maps, ``halvings`` halvings below ``resolution``. Raises ValueError if it is not a whole
    number; ``network`` is its name in the message."""
    if resolution < 1 or resolution % 2**halvings:
        raise ValueError(f"resolution={resolution}: must be a multiple of {2**halvings} for {network}")
    return resolution // 2**halvings
