"""Layers that several families share: resampling convolutions, spectral normalization, self-attention, class conditions.

*Resampling.* A nearest x2 enlargement followed by a 3x3 convolution is one 4x4 transposed convolution of stride 2,
and a 3x3 convolution followed by 2x2 average pooling is one 4x4 convolution of stride 2: in both, the 4x4 kernel is the
sum of the 3x3 one's four shifts. That is 16 multiply-adds where the two steps take 36. A 1x1 convolution commutes with
both resamplings, so it runs where the image is small. Weights stay 3x3: in files, in counts, under spectral normalization.

*Spectral normalization.* Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks",
2018, arXiv 1802.05957, section 2 and algorithm 1. One power iteration a forward pass, warm-started from the buffer ``u``.
Where we differ from the authors' code: linear and embedding layers, like the convolutions, keep their ``u`` in eval mode.

*Self-attention.* Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative Adversarial Networks", 2018, arXiv
1805.08318, as in the authors' code (pooled keys and values, an output convolution), not as in the paper's figure.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def glorot_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with deviation gain * sqrt(2 / (fan_in + fan_out)), the fans counted over the kernel's area."""
    return nn.init.xavier_uniform_(weight, gain)


def spectral(weight: Tensor, u: Tensor, update: bool) -> Tensor:
    """``weight`` divided by its largest singular value, as a matrix [out, the rest]; differentiated through that value.

    ``u`` [out] is the left singular vector of the last pass; it is replaced by this pass's where ``update``. Products
    are written elementwise so that autocast leaves them in float32.
    """
    # The order of the columns does not matter, and this one is a view where the weight is channels_last.
    W = weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight
    with torch.no_grad():
        v = F.normalize((W * u[:, None]).sum(0), dim=0, eps=1e-12)
        left = F.normalize((W * v).sum(1), dim=0, eps=1e-12)
        if update:  # written through out=, which torch.func's transforms allow for a captured tensor; copy_ they refuse
            torch.mul(left, 1.0, out=u)
    return weight / (left * (W * v).sum(1)).sum()


class InstanceNorm2d(nn.InstanceNorm2d):
    """Each map of each image [N, C, H, W] to mean 0 and variance 1, then gain and bias where ``affine``: a group norm of one
    map a group. torch's own instance norm returns wrong gradients, without a word, for one image (N = 1) where the layer
    after it works in channels_last (seen in 2.14.1 on CPU)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)


class Spectral(nn.Module):
    """The switch ``sn`` and the buffer ``u`` of a layer whose weight may be normalized."""

    def normalize(self, sn: bool) -> None:
        self.sn = sn
        if sn:
            self.register_buffer("u", torch.randn(self.weight.shape[0]))

    def kernel(self) -> Tensor:
        """The weight that the layer applies."""
        return spectral(self.weight, self.u, self.training) if self.sn else self.weight


class Conv2d(nn.Conv2d, Spectral):
    """A 1x1 or 3x3 convolution that keeps the image's size, after a nearest x2 enlargement (``resample="up"``) or before
    2x2 average pooling (``"down"``). Glorot-uniform weights times ``gain``, biases 0."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, resample: str = "", sn: bool = False,
                 bias: bool = True, gain: float = 1.0):  # fmt: skip
        assert kernel in (1, 3) and resample in ("", "up", "down")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.resample = resample
        glorot_(self.weight, gain)
        if bias:
            nn.init.zeros_(self.bias)
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
    # Average pooling with a border of zeros is exactly this; on CPU in channels_last it costs a tenth of pads and adds.
    # On CUDA its gradient is wrong in that layout (pytorch issue 188344, seen in 2.11).
    layout = torch.channels_last if w.device.type == "cpu" else torch.contiguous_format
    return F.avg_pool2d(w.contiguous(memory_format=layout), 2, stride=1, padding=1)


class Linear(nn.Linear, Spectral):
    """A linear layer with Glorot-uniform weights and zero biases."""

    def __init__(self, inputs: int, outputs: int, *, sn: bool = False, bias: bool = True):
        super().__init__(inputs, outputs, bias=bias)
        glorot_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)
        self.normalize(sn)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs] -> [N, outputs]."""
        return F.linear(x, self.kernel(), self.bias)


class Embedding(nn.Embedding, Spectral):
    """A table of vectors, Glorot-uniform."""

    def __init__(self, entries: int, features: int, *, sn: bool = False):
        super().__init__(entries, features)
        glorot_(self.weight)
        self.normalize(sn)

    def forward(self, y: Tensor) -> Tensor:
        """y int64 [N] -> [N, features]."""
        return F.embedding(y, self.kernel())


def conditioned(y: Tensor | None) -> Tensor:
    """``y``, or a ValueError where a class-conditional network was called without classes."""
    if y is None:
        raise ValueError("this network is class-conditional: give y, an int64 tensor [N] of class numbers")
    return y


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization; with ``classes`` each class has its own gain and bias (Dumoulin et al. 2017, de Vries et al.
    2017), which start at 1 and 0, so that all classes start alike."""

    def __init__(self, features: int, classes: int = 0, *, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(features, eps=eps, momentum=momentum, affine=not classes)
        self.classes = classes
        if classes:
            self.gain = nn.Embedding(classes, features)
            self.shift = nn.Embedding(classes, features)
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x [N, C, H, W], y int64 [N] or None without classes -> [N, C, H, W]."""
        h = super().forward(x)
        if not self.classes:
            return h
        y = conditioned(y)
        return torch.addcmul(self.shift(y)[:, :, None, None], h, self.gain(y)[:, :, None, None])


class SelfAttention(nn.Module):
    """SAGAN's block: every position adds what it gathers from a quarter of the positions, weighted by likeness.

    Spectrally normalized 1x1 convolutions without biases; queries and keys have C/8 channels, values C/2. The result
    enters through the scalar ``gamma`` (the code's sigma), which starts at 0: the block starts as the identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        if channels < 8:
            raise ValueError(f"self-attention needs at least 8 channels, not {channels}; take a larger width")
        self.query = Conv2d(channels, channels // 8, 1, sn=True, bias=False)
        self.key = Conv2d(channels, channels // 8, 1, sn=True, bias=False)
        self.value = Conv2d(channels, channels // 2, 1, sn=True, bias=False)
        self.output = Conv2d(channels // 2, channels, 1, sn=True, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def attention(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> weights [N, HW, HW/4]; each row sums to 1. Likenesses are not scaled."""
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
        return score + (self.embedding(conditioned(y)) * phi).sum(1) if self.classes else score


def doublings(resolution: int, steps: int, network: str) -> int:
    """The side of the image ``steps`` doublings before ``resolution``; ValueError where that is no whole number."""
    if resolution < 1 or resolution % 2**steps:
        raise ValueError(
            f"{network} can't do resolution {resolution}: it halves the image {steps} times, so take a multiple of {2**steps}"
        )
    return resolution // 2**steps


HE = math.sqrt(2.0)  # Glorot's deviation times this is what the ResNet papers call He initialization
