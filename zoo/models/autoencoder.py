"""Noise -> images, and images -> codes: a generator with an encoder (VAE/GAN, BiGAN).

Keys of the spec as for images; the second network is the encoder, E(x) -> the code [N, latent] of G, or a tuple whose
first entry is the code's mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.models.arguments import Images, as_batch, as_vector, check_chunk, check_size
from zoo.models.image import ImageModel
from zoo.models.inference import inference
from zoo.models.request import Request
from zoo.registry import TASKS


@TASKS.register("autoencoder")
class AutoencoderModel(ImageModel):
    """An image model with an encoder."""

    words = "images, encoder"

    @property
    def encoder(self) -> nn.Module:
        """The encoder: the second network of the spec."""
        return getattr(self, list(self.spec["networks"])[1])

    def encode(self, images: Images, chunk: int = 16) -> Tensor:
        """The codes of images: float32 [N, latent], on the model's device; the mean if the code is a distribution.

        ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image, or a list of PIL images, of the spec's
        resolution. ``chunk``: images in one pass of E. Raises ValueError if the images do not fit.
        """
        x = as_batch(images, self.channels)
        check_size(x, self.resolution)
        codes = []
        for part in x.split(check_chunk(chunk)):
            with inference(self):
                code = self.encoder(self.from_unit(part.to(self.device)))
            codes.append((code[0] if isinstance(code, tuple) else code).float())
        return torch.cat(codes)

    def reconstruct(self, images: Images, shift: Tensor | Sequence[float] | None = None, chunk: int = 16) -> Tensor:
        """G(E(images)): float32 [N, C, H, W] in [0, 1]. ``shift`` [latent] (such as an attribute's vector) is added to
        the codes. Raises ValueError for a shift of another length or of values that are no finite numbers."""
        codes = self.encode(images, chunk)
        if shift is not None:
            codes = codes + as_vector("shift", shift, codes.shape[1]).to(codes)
        chunk = self.sampling.together or chunk
        return torch.cat(list(self.decode(codes, chunk=chunk)))

    def attribute(self, having: Images, lacking: Images, chunk: int = 16) -> Tensor:
        """The vector [latent] of an attribute: the mean code of images that have it (``having``) minus that of images
        that do not (``lacking``) (Larsen et al. 2015, section 4.1)."""
        return self.encode(having, chunk).mean(0) - self.encode(lacking, chunk).mean(0)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """As an image model, then a row of real images and a row of their reconstructions."""
        samples, columns = super().preview(reals)
        real = next((x for x in reals.values() if x.ndim == 4), None)
        if real is None:
            return samples, columns
        real = self.to_unit(real[:columns].to(samples.device))
        if len(real) < columns:
            return samples, columns
        return torch.cat([samples, real, self.reconstruct(real)]), columns

    def probe(self) -> Iterator[Tensor]:
        yield from super().probe()
        yield self.reconstruct(self.sample(64))

    def write(self, request: Request) -> None:
        if request.source is None:
            super().write(request)
            return
        request.only("source", "scale")
        request.remake(lambda image, seed: self.reconstruct(image)[0], self.resolution, self.channels)
