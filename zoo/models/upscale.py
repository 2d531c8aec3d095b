"""Images -> the same images with more pixels: one generator, any size.

Keys of the spec: ``factor``, how many times wider and higher the images become; ``input_range``, the range of the
values that the generator takes, if not that of its outputs (``range``).

A large image is cut into tiles that overlap by a margin: as many pixels as an output pixel can depend on, so that the
tiles fit without a seam. The number follows from the layers, if all look at their own place and its neighbors;
another generator has it as ``margin``, or its images are never cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.checks import check_whole
from zoo.data.images import is_transparent, to_array
from zoo.data.views import enlarge, shrink
from zoo.files import Json, shell_word
from zoo.models.arguments import Images, as_batch, check_chunk
from zoo.models.base import Bench, Model, Pairs, Program, build_model, probe_images
from zoo.models.inference import use_batch_statistics
from zoo.models.request import Request
from zoo.registry import TASKS

if TYPE_CHECKING:
    from zoo.metrics.images import Images as ScoredImages
    from zoo.metrics.inputs import ScoreInputs

TILE = 192  # pixels of a side, of the image that goes in
OPAQUE = (".jpg", ".jpeg", ".bmp")  # endings of files that have no transparency, or lose it


@TASKS.register("upscale")
class UpscaleModel(Model):
    """An upscaler: the first network makes images ``factor`` times as wide and high."""

    verb = "upscale"
    words = "larger images"
    keys = ("factor",)
    test_rule = "held-out images"
    watched = ("psnr",)
    bench = Bench(("psnr-y", "ssim-y", "psnr", "ssim", "patch-fd"), main="psnr-y", bars={"psnr-y": ("bicubic",)})

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        factor = spec["factor"]
        if not isinstance(factor, int) or isinstance(factor, bool) or not 2 <= factor <= 16:
            raise ValueError(f"model spec: factor={factor!r}: must be a whole number from 2 to 16")
        self.factor = factor
        self.input_low, self.input_high = range_of(spec.get("input_range", spec["range"]))

    @property
    def generator(self) -> nn.Module:
        """The generator: the first network of the spec."""
        return getattr(self, next(iter(self.spec["networks"])))

    @property
    def margin(self) -> int | None:
        """The pixels of the input around its own place that an output pixel depends on, at most; None if it may depend
        on all: then images are never cut."""
        own = getattr(self.generator, "margin", None)
        layers = [m for m in self.generator.modules() if not any(m.children())]
        if own is None and self.sampling.together is None and all(is_local(m) for m in layers):
            return sum(map(reach, layers))
        return own

    def render(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> [N, C, factor * H, factor * W] in [0, 1], in one pass."""
        return self.to_unit(self.generator(x * (self.input_high - self.input_low) + self.input_low))

    def forward(self, images: Images) -> Tensor:
        """As :meth:`upscale`."""
        return self.upscale(images)

    def upscale(self, images: Images, chunk: int = 16, *, tile: int = TILE) -> Tensor:
        """The images ``factor`` times as wide and high: float32 [N, C, factor * H, factor * W] in [0, 1].

        Args:
            images: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images of one size; any
                size. A PIL image with transparency, or a tensor with one channel more than the model has, whose last
                channel is opacity, keeps it: the output has that channel too, enlarged bicubically.
            chunk: images in one pass; the recipe's number if it samples with batch statistics.
            tile: the side in pixels of the parts in which a larger image is upscaled, without the margin.

        Raises ValueError if the images do not fit.
        """
        check_whole("tile", tile)
        x = with_opacity(images, self.channels)
        x, opacity = x[:, : self.channels], x[:, self.channels :]  # [N, C, H, W], [N, 0 or 1, H, W]
        chunk = self.sampling.together or check_chunk(chunk)
        outputs: list[Tensor] = []
        for part in x.split(chunk):
            first = sum(len(y) for y in outputs)
            try:
                with self.inference(range(first, first + len(part))):
                    outputs.append(self._tiles(part, tile))
            except torch.OutOfMemoryError:
                message = f"chunk={chunk}, tile={tile}: out of memory; lower them"
                raise RuntimeError(message) from None
        larger = torch.cat(outputs)
        if not opacity.shape[1]:
            return larger
        return torch.cat([larger, enlarge(opacity, self.factor).to(larger.device)], 1)

    def _tiles(self, x: Tensor, tile: int) -> Tensor:
        """Images x [N, C, H, W] in [0, 1] -> the same, upscaled tile by tile."""
        (height, width), factor, margin = x.shape[-2:], self.factor, self.margin
        if margin is None or max(height, width) <= tile:
            return self.render(x.to(self.device))
        larger = torch.empty(len(x), self.channels, factor * height, factor * width, device=self.device)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                bottom, right = min(top + tile, height), min(left + tile, width)
                above, before = max(top - margin, 0), max(left - margin, 0)  # where the part with its margin begins
                part = self.render(x[..., above : bottom + margin, before : right + margin].to(self.device))
                rows = slice(factor * (top - above), factor * (bottom - above))
                columns = slice(factor * (left - before), factor * (right - before))
                place = slice(factor * top, factor * bottom), slice(factor * left, factor * right)
                larger[..., place[0], place[1]] = part[..., rows, columns]
        return larger

    # What it shows ----------------------------------------------------------------------------------------------------

    def _small(self, x: Tensor) -> Tensor:
        """Images in [0, 1] reduced by the factor; sides that are no multiple of it lose the rest."""
        height, width = (side // self.factor * self.factor for side in x.shape[-2:])
        return shrink(x[..., :height, :width], self.factor)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """A row of reduced real images enlarged bicubically, a row of them upscaled, a row of the real images."""
        x = self.to_unit(next(x for x in reals.values() if x.ndim == 4))
        small = self._small(x)
        larger = self.upscale(small).to(x.device)
        x = x[..., : larger.shape[-2], : larger.shape[-1]]
        return torch.cat([enlarge(small, self.factor), larger, x]), len(x)

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """All ``inputs`` upscaled."""
        if not inputs:
            raise ValueError("an upscaler needs images: pass inputs={'x': ...}")
        return torch.cat([self.upscale(x) for x in inputs.values()])

    # What the rest of the zoo asks ------------------------------------------------------------------------------------

    def describe(self) -> str:
        return f"images {self.factor} times as large"

    @classmethod
    def commands(cls, spec: Mapping[str, Any], name: str) -> list[str]:
        return [f"zoo sample {shell_word(name)} --input image.png --out larger.png"]

    def probe(self) -> Iterator[Tensor]:
        yield self.upscale(self._small(probe_images(self)))

    def program(self, to: str | None) -> Program:
        self.direction(to)
        if self.sampling.mode == "dropout":
            raise ValueError("this model samples with dropout, which a file cannot draw: it cannot be exported")
        model = use_batch_statistics(copy.deepcopy(self)) if self.sampling.together else self
        side = max(self.resolution // self.factor, 1)

        class Upscaler(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, images: Tensor) -> Tensor:
                return self.model.render(images)

        def inputs(n: int) -> tuple[Tensor, ...]:
            size = (n, self.channels, side + n, side + 2 * n)  # of each n another size, for any is taken
            return (torch.rand(size, generator=torch.Generator().manual_seed(n)),)

        free = {"images": {2: "height", 3: "width"}}
        return Program(Upscaler().eval().requires_grad_(False), inputs, ["images"], "larger", free)

    def write(self, request: Request) -> None:
        if request.source is None:
            raise ValueError(f"--input: '{request.name}' enlarges images; give an image or a folder of images")
        request.only("source", "scale")

        def make(image: Image.Image, seed: int) -> Tensor:
            (larger,) = self.upscale(image)
            if len(larger) > self.channels and request.suffix in OPAQUE:
                raise ValueError(f"--out {request.out}: the image is transparent, which {request.suffix} files cannot "
                                 f"be; choose .png")  # fmt: skip
            return larger

        request.remake(make, None, self.channels, multiple=1, transparent=True, larger=self.factor)

    # Scores -----------------------------------------------------------------------------------------------------------

    def scored_images(self, inputs: ScoreInputs) -> ScoredImages:
        """The real images of the split, reduced and upscaled again."""
        return inputs.changed(inputs.real_images(inputs.split, whole=True), lambda x, _: self.upscale(self._small(x)))

    def reference_images(self, inputs: ScoreInputs) -> ScoredImages:
        """The real images of the split, of which the rest of a division by the factor is cut."""

        def multiple(x: Tensor) -> Tensor:
            height, width = (side // self.factor * self.factor for side in x.shape[-2:])
            return x[..., :height, :width]

        return inputs.real_images(inputs.split, whole=True).map(multiple)

    def scored_pairs(self, inputs: ScoreInputs) -> Pairs:
        targets = self.reference_images(inputs).at_most(inputs.images.count)
        return Pairs(inputs.images, targets, generated=False)

    def baselines(self, inputs: Callable[[str], ScoreInputs]) -> Iterator[tuple[str, Model]]:
        """Bicubic interpolation, and the nearest pixel."""
        for mode in ("bicubic", "nearest"):
            spec = {**self.spec, "range": [0, 1], "input_range": [0, 1], "networks": {"G": {}}}
            yield mode, build_model(spec, {"G": Interpolation(self.factor, mode)}, self.card)


def range_of(value: Any) -> tuple[float, float]:
    """The two ends of a range in a spec. Raises ValueError if it is none."""
    numbers = isinstance(value, (list, tuple)) and all(type(v) in (int, float) and abs(v) < 1e6 for v in value)
    if not numbers or len(value) != 2 or not value[0] < value[1]:
        raise ValueError(f"model spec: input_range={value!r}: must be two numbers, the lower one first")
    return value[0], value[1]


LOCAL = (
    nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity,
    nn.PixelShuffle, nn.UpsamplingNearest2d,
)  # fmt: skip


def is_local(layer: nn.Module) -> bool:
    """Whether a value that a layer gives depends on its own place and its neighbors alone, at no lower resolution."""
    if isinstance(layer, nn.Conv2d):
        return layer.stride == (1, 1) and not getattr(layer, "resample", "")
    return isinstance(layer, LOCAL)


def reach(layer: nn.Module) -> int:
    """By how many pixels a local layer looks to each side."""
    if not isinstance(layer, nn.Conv2d):
        return 0
    return max(d * (k // 2) for k, d in zip(layer.kernel_size, layer.dilation, strict=True))


def with_opacity(images: Images, channels: int) -> Tensor:
    """Images as float [N, C, H, W] in [0, 1], or [N, C + 1, H, W] if one of them has transparency: then the last
    channel is opacity. Raises ValueError for anything else."""
    if isinstance(images, Tensor):
        return as_batch(images, channels + 1 if images.ndim > 2 and images.shape[-3] == channels + 1 else channels)
    several = images if isinstance(images, (list, tuple)) else [images]
    if not any(isinstance(image, Image.Image) and is_transparent(image) for image in several):
        return as_batch(images, channels)
    return torch.cat([as_batch(opaque_and_opacity(image, channels), channels + 1) for image in several])


def opaque_and_opacity(image: Any, channels: int) -> Tensor:
    """A PIL image as [C + 1, H, W] in [0, 1]: its colors as they are under the transparency, and the opacity."""
    if not isinstance(image, Image.Image):
        raise ValueError(f"images: must be PIL images, as one of them is transparent, got {type(image).__name__}")
    image = ImageOps.exif_transpose(image).convert("RGBA")
    colors = image.convert("L" if channels == 1 else "RGB")
    parts = [torch.from_numpy(to_array(i)).float() / 255 for i in (colors, image.getchannel("A"))]
    return torch.cat(parts)


class Interpolation(nn.Module):
    """An upscaler without weights. ``mode``: ``"bicubic"``, or ``"nearest"``: the nearest pixel."""

    margin = 2  # pixels that a bicubic kernel reaches

    def __init__(self, factor: int, mode: str):
        super().__init__()
        self.factor, self.mode = factor, mode
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "bicubic":
            return self.scale * enlarge(x, self.factor)
        return self.scale * interpolate(x, scale_factor=float(self.factor), mode=self.mode)
