"""StackGAN++: a generator of images of several sizes against a discriminator for each size, which score whether an
image is real and whether it fits its text.

H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN++: Realistic Image Synthesis with Stacked
Generative Adversarial Networks, 2017, arXiv 1710.10916, section 4; the losses are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from zoo.discriminate import Discriminate, keep_running_averages
from zoo.game import Batch, Game, Turn
from zoo.networks.interfaces import MultiscaleGenerator
from zoo.networks.lapgan import downsample
from zoo.networks.stackgan import GeneratorOutput
from zoo.priors import build_prior
from zoo.registry import GAMES, Spec

NORMAL = Spec("normal")  # the prior of z


@GAMES.register("stackgan-pp")
class StackGANPP(Game):
    """G against ``D.0``, ``D.1``, ...: a step of all D, then one of G on the same fakes.

    At each size, with the logits c of images and texts and u of images alone, for a real image x with its text, a real
    image w of another class with this text and a fake s::

        L_D = mean softplus(-c(x)) + mean softplus(c(w)) + mean softplus(c(s))
              + unconditional (mean softplus(-u(x)) + mean softplus(-u(w)) + mean softplus(u(s)))
        L_G = mean softplus(-c(s)) + unconditional mean softplus(-u(s))

    and G's loss, the sum over sizes, has ``divergence`` KL more. If ``unconditional`` is 0, w and s count half each.
    Without texts only the terms of u(x) and u(s) are left, and a loss keeps the colors of an image close to those of
    the smaller one.

    Args:
        networks: G, D, a list of a network for each size of G's images, and, if G takes texts, T, the text encoder.
        unconditional: with texts, weight of the scores of images alone.
        divergence: with texts, weight of KL, the divergence of G's codes from N(0, 1), a mean over batch and
            dimensions.
        color_mean, color_covariance: weights of the squared distances of the channels' means and covariances from those
            of the next smaller image, which gets no gradient.
        examples: texts of the model's pictures.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x`` and, with texts, ``text`` (embeddings), ``wrong`` and, if the data have classes, ``y`` and
    ``wrong_y``; rows whose two classes are equal by chance count as 0 in c(w). Writes ``z`` and ``noise/NAME``.
    """

    takes: tuple[str, ...] = ("G", "D")
    joined = "never"
    G: MultiscaleGenerator
    D: nn.ModuleList

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        unconditional: float = 1.0,
        divergence: float = 2.0,
        color_mean: float = 0.0,
        color_covariance: float = 0.0,
        examples: Sequence[str] = (),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        self.unconditional, self.divergence, self.examples = unconditional, divergence, tuple(examples)
        self.color_mean, self.color_covariance = color_mean, color_covariance
        self.texts, self.prior = bool(self.G.text), build_prior(NORMAL, self.G)
        self.needs = ("x", "text", "wrong") if self.texts else ("x",)

    def turns(self) -> Sequence[Turn]:
        D = [f"D.{i}" for i in range(len(self.D))]
        return [Turn(D, self.loss_D), Turn(["G"], self.loss_G, draw="last")]

    # What a turn minimizes ------------------------------------------------------------------------------------------

    def loss_D(self, batch: Batch) -> Tensor:
        batch["z"] = batch.latent(self.prior)
        batch.update({f"noise/{k}": batch.randn(*shape) for k, shape in self.G.noise_shapes.items()})
        with keep_running_averages(self.G):  # the fakes of both steps count once
            output = self.generate(batch)
        given = {} if output.mean is None else {"text": output.mean.detach()}
        discriminate, losses = Discriminate(self, batch), []
        for i, fakes in enumerate(output.images):
            images = {"real": batch["x"], "fake": fakes.detach()} | ({"wrong": batch["wrong"]} if self.texts else {})
            side = fakes.shape[-1]
            scores = {k: discriminate(resized(x, side), given, D=f"D.{i}").scores for k, x in images.items()}
            for kind in ("real", "fake"):
                for name, score in scores[kind].items():
                    batch.log(f"D/{i}/{kind}_{name}", score.float().mean())
            losses += self.losses_D(scores, batch)
        return torch.stack(losses).sum()

    def losses_D(self, scores: Mapping[str, Mapping[str, Tensor]], batch: Batch) -> list[Tensor]:
        """The terms of one D's loss from its scores by kind of image and by name."""
        real, fake = scores["real"], scores["fake"]
        if not self.texts:
            return [positive(real["unconditional"]), negative(fake["unconditional"])]
        wrong = softplus(scores["wrong"]["conditional"].float())
        if "y" in batch:
            wrong = wrong * (batch["wrong_y"] != batch["y"])
        false = [wrong.mean(), negative(fake["conditional"])]
        if not self.unconditional:
            return [positive(real["conditional"]), 0.5 * torch.stack(false).sum()]
        alone = [positive(real["unconditional"]), positive(scores["wrong"]["unconditional"])]
        alone.append(negative(fake["unconditional"]))
        return [positive(real["conditional"]), *false, self.unconditional * torch.stack(alone).sum()]

    def loss_G(self, batch: Batch) -> Tensor:
        output, discriminate, losses = self.generate(batch), Discriminate(self, batch), []
        given = {} if output.mean is None else {"text": output.mean}  # with gradient
        for i, fakes in enumerate(output.images):
            scores = discriminate(fakes, given, D=f"D.{i}").scores
            losses += [positive(scores["conditional"])] if self.texts else []
            weight = self.unconditional if self.texts else 1.0
            losses += [weight * positive(scores["unconditional"])] if weight else []
        if output.divergence is not None:
            divergence = output.divergence.float().mean()
            batch.log("G/divergence", divergence)
            losses.append(self.divergence * divergence)
        if self.color_mean or self.color_covariance:
            for small, large in pairwise(output.images):
                losses.append(self.color(small.detach(), large, batch))
        return torch.stack(losses).sum()

    # Their parts ----------------------------------------------------------------------------------------------------

    def generate(self, batch: Batch) -> GeneratorOutput:
        """The fakes of the batch's texts and noise."""
        if not self.texts:
            return self.G.generate(batch["z"])
        return self.G.generate(batch["z"], batch["text"], {k: batch[f"noise/{k}"] for k in self.G.noise_shapes})

    def color(self, small: Tensor, large: Tensor, batch: Batch) -> Tensor:
        """The distance of the colors of images [N, C, 2R, 2R] from those of images [N, C, R, R] (section 4.3)."""
        (mean, covariance), (of_small, covariance_of_small) = map(colors, (large, small))
        distances = mse_loss(mean, of_small), mse_loss(covariance, covariance_of_small)
        loss = self.color_mean * distances[0] + self.color_covariance * distances[1]
        batch.log(f"G/color_{large.shape[-1]}", loss)
        return loss

    def ships(self) -> dict[str, Any]:
        model = {"networks": ["G"], "prior": NORMAL}
        if not self.texts:
            return {"kind": "image", **model}
        more = {"pretrained": ["T"], "text": "T", "examples": list(self.examples)}
        return {"kind": "text-to-image", **model, **more}


def resized(x: Tensor, side: int) -> Tensor:
    """Images [N, C, R, R] -> [N, C, side, side]."""
    return x if x.shape[-1] == side else downsample(x, side)


def positive(logits: Tensor) -> Tensor:
    """-log D, a mean over the batch in float32."""
    return softplus(-logits.float()).mean()


def negative(logits: Tensor) -> Tensor:
    """-log(1 - D), a mean over the batch in float32."""
    return softplus(logits.float()).mean()


def colors(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [N, C, 1] and the covariance [N, C, C] of the channels over the pixels of images [N, C, H, W]."""
    pixels = x.float().flatten(2)  # [N, C, H W]
    mean = pixels.mean(2, keepdim=True)
    return mean, (pixels - mean) @ (pixels - mean).mT / pixels.shape[2]
