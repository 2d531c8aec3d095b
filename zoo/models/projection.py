"""From an image to the latent of a generator: z or, of a generator with styles, w.

The start is the nearest of random samples, in mean squared error; Adam then minimizes this error (R. Abdal, Y. Qin, P.
Wonka, Image2StyleGAN, 2019, arXiv 1904.03189, without the distance of a feature network). The same arguments give the
same latent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from zoo.checks import check_number, check_whole
from zoo.models.arguments import Classes, Images, NoiseSeeds, as_batch, check_size, noise_seeds, plain_value, seed_list

if TYPE_CHECKING:
    from zoo.models.image import ImageModel


class Projection(NamedTuple):
    """Latents [N, ...], z or w; their images [N, C, H, W] in [0, 1]; the mean squared error [N] of each; their classes
    int64 [N], None for a model without."""

    latents: Tensor
    images: Tensor
    errors: Tensor
    classes: Tensor | None

    @property
    def psnr(self) -> Tensor:
        """Of each image, in dB, [N]."""
        return -10 * self.errors.clamp(min=1e-10).log10()


def project(
    model: ImageModel,
    images: Images,
    *,
    y: Classes | None = None,
    steps: int = 300,
    samples: int = 1000,
    starts: int = 4,
    lr: float = 0.1,
    seed: int = 0,
    noise: NoiseSeeds | None = None,
) -> Projection:
    """As :meth:`zoo.models.image.ImageModel.project`."""
    if not model.resolution or model.directions or model.sampling.mode in ("batch", "dropout"):
        raise ValueError(
            "project: must be a model with one image of each latent, without batch statistics or dropout in sampling"
        )
    for key, value in (("steps", steps), ("samples", samples), ("starts", starts)):
        check_whole(key, value)
    check_number("lr", lr)
    if not lr > 0:
        raise ValueError(f"lr={lr}: must be above 0")
    if starts > samples:
        raise ValueError(f"starts={starts}: must be at most samples={samples}")
    x = as_batch(images, model.channels).to(model.device)
    check_size(x, model.resolution)
    shapes: Mapping[str, Any] = getattr(model.generator, "noise_shapes", {})
    of_noise = noise_seeds("none" if noise is None and shapes else noise, len(x), shapes)
    seeds = seed_list(samples, seed, None)
    one = plain_value(y) if isinstance(plain_value(y), (int, str)) else None
    z, classes = model.latents(seeds, one)
    own = None if y is None else model.conditions(y, len(x))
    nearest = nearest_samples(model, x, z, classes, starts)  # [N, starts]
    results = []
    for i, target in enumerate(x):
        rows = nearest[i].cpu()
        given = None if classes is None else classes[rows]
        if own is not None:
            given = own[i : i + 1].expand(starts, *own.shape[1:])
        beside = model.noise([of_noise[i]] * starts) if of_noise else {}
        results.append(nearest_latent(model, target, z[rows], given, beside, steps, lr))
    latents, remade, errors, chosen = zip(*results, strict=True)
    labels = None if classes is None else torch.stack(chosen)
    return Projection(torch.stack(latents), torch.stack(remade), torch.stack(errors), labels)


def nearest_samples(model: ImageModel, x: Tensor, z: Tensor, classes: Tensor | None, count: int) -> Tensor:
    """The numbers [N, count] of the samples of z that are nearest to images x [N, C, H, W] in mean squared error."""
    distances = []
    for generated in model.decode(z, classes, 50):
        distances.append((generated[:, None] - x).square().mean((2, 3, 4)))  # [chunk, N]
    return torch.cat(distances).topk(count, 0, largest=False).indices.T


def nearest_latent(
    model: ImageModel,
    target: Tensor,
    z: Tensor,
    classes: Tensor | None,
    noise: Mapping[str, Tensor],
    steps: int,
    lr: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The best latent of those that Adam reaches from z [starts, ...], its image, its error and its class. ``target``:
    [C, H, W] in [0, 1]. The learning rate follows half a cosine down to 0."""
    G: Any = model.generator
    inputs: dict[str, Any] = {} if classes is None else {model.condition: classes.to(model.device)}
    beside = {"noise": {k: v.to(model.device) for k, v in noise.items()}} if noise else {}
    with model.inference():
        start = G.mapping(z.to(model.device), *inputs.values()) if model.style_count else z.to(model.device)

        def render(latent: Tensor) -> Tensor:
            images: Tensor = G.synthesis(latent, **beside) if model.style_count else G(latent, **inputs, **beside)
            return images

        latent = start.detach().clone()
        best, errors, pictures = latent.clone(), torch.full((len(z),), math.inf, device=model.device), None
        goal = model.from_unit(target)
        with torch.enable_grad():
            latent.requires_grad_()
            optimizer = torch.optim.Adam([latent], lr=lr)
            for step in range(steps + 1):
                images = render(latent).float()
                unit = model.to_unit(images.detach())
                error = (unit - target).square().mean((1, 2, 3))  # [starts]
                better = error < errors
                errors = torch.where(better, error, errors)
                shape = (-1, *[1] * (latent.dim() - 1))
                best = torch.where(better.view(shape), latent.detach(), best)
                pictures = unit if pictures is None else torch.where(better[:, None, None, None], unit, pictures)
                if step == steps:
                    break
                optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
                # Beyond black or white a value is as good as black or white
                near = torch.where(goal >= model.high, images.clamp(max=model.high), images)
                near = torch.where(goal <= model.low, near.clamp(min=model.low), near)
                (latent.grad,) = torch.autograd.grad((near - goal).square().mean((1, 2, 3)).sum(), latent)
                optimizer.step()
    assert pictures is not None
    k = int(errors.argmin())
    return best[k], pictures[k], errors[k], None if classes is None else classes[k]
