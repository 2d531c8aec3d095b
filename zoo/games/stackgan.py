"""StackGAN: one stage of a generator of images from texts, against a discriminator that also sees real images with the
texts of others.

H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN: Text to Photo-realistic Image Synthesis with
Stacked Generative Adversarial Networks, 2016, arXiv 1612.03242, sections 3.2 to 3.4; the losses are those of the
authors' code. In stage II the networks of stage I are frozen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.discriminate import Discriminate, keep_running_averages
from zoo.game import Batch, Game, Turn
from zoo.networks.interfaces import TextGenerators
from zoo.networks.stackgan import GeneratorOutput
from zoo.priors import build_prior
from zoo.registry import GAMES, Spec

NORMAL = Spec("normal")  # the prior of z


@GAMES.register("stackgan")
class StackGAN(Game):
    """``G.level`` against ``D.level``, a step of D, then one of G.

    The logits D(x, t) of images and texts are s for a real image with its text, w for a mismatched pair, f for a fake::

        L_D = mean softplus(-s) + (mean softplus(w) + mean softplus(f)) / 2
        L_G = mean softplus(-f) + divergence * KL

    With a second, unconditional score each half of L_D is a mean over all its terms, and L_G has a term for both. KL is
    the divergence of G's codes from N(0, 1), a mean over the batch and the code's dimensions.

    Args:
        networks: G and D, lists of a network for each stage, and T, the text encoder.
        level: the stage, from 0.
        mismatched: ``"images"``: a real image of another class with this text, from a stream of its own; rows of one
            class by chance count as 0 if the data have classes. ``"texts"``: this real image with the text of another
            row.
        condition: D gets the embedding (``"text"``), or the mean of G's code (``"mean"``), through which G gets no
            gradient.
        noise: G's step has new noise (``"fresh"``), or generates the fakes of D's step again (``"same"``).
        divergence: weight of KL.
        examples: texts of the model's pictures.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x``, ``text`` (embeddings) and, by ``mismatched``, ``wrong`` with the classes ``y`` and
    ``wrong_y``, if the data have them, or ``other_text``; writes ``z`` and ``noise/NAME``.
    """

    takes = ("G", "D", "T")
    joined = "never"
    G: TextGenerators

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        level: int,
        mismatched: Literal["images", "texts"] = "images",
        condition: Literal["text", "mean"] = "text",
        noise: Literal["fresh", "same"] = "fresh",
        divergence: float = 2.0,
        examples: Sequence[str] = ("a red bird",),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        for key, value, choices in (
            ("mismatched", mismatched, ("images", "texts")),
            ("condition", condition, ("text", "mean")),
            ("noise", noise, ("fresh", "same")),
        ):
            if value not in choices:
                raise ValueError(f"game.{key}='{value}': must be {choices[0]} or {choices[1]}")
        self.level, self.path = level, f"D.{level}"
        self.mismatched, self.condition, self.noise, self.divergence = mismatched, condition, noise, divergence
        self.prior, self.examples = build_prior(NORMAL, self.G), tuple(examples)
        own = ("wrong",) if mismatched == "images" else ("other_text",)
        self.needs = ("x", "text", *own)

    def turns(self) -> Sequence[Turn]:
        return [Turn([self.path], self.loss_D), Turn([f"G.{self.level}"], self.loss_G, draw="last")]

    # What a turn minimizes ------------------------------------------------------------------------------------------

    def loss_D(self, batch: Batch) -> Tensor:
        discriminate, given = Discriminate(self, batch), {"text": self.given(batch["text"])}
        once = self.noise == "same"  # the fakes of both steps count once in the running averages
        with keep_running_averages(self.G) if once else contextlib.nullcontext():
            fakes = self.generate(batch).images[0].detach()  # [N, C, R, R]
        others = {"other_text": self.given(batch["other_text"])} if self.mismatched == "texts" else {}
        real = dict(discriminate(batch["x"], {**given, **others}, D=self.path).scores)
        fake = discriminate(fakes, given, D=self.path).scores
        false = [softplus(score.float()).mean() for score in fake.values()]
        if self.mismatched == "texts":
            wrong = softplus(real.pop("mismatched").float())  # [N]
        else:
            wrong = softplus(discriminate(batch["wrong"], given, D=self.path).scores["conditional"].float())
            if "y" in batch:
                wrong = wrong * (batch["wrong_y"] != batch["y"])
        true = [softplus(-score.float()).mean() for score in real.values()]
        for name in real:
            batch.log(f"D/real_{name}", real[name].float().mean())
            batch.log(f"D/fake_{name}", fake[name].float().mean())
        return torch.stack(true).mean() + torch.stack([wrong.mean(), *false]).mean()

    def loss_G(self, batch: Batch) -> Tensor:
        output = self.generate(batch, again=self.noise == "same")
        assert output.divergence is not None
        given = {"text": self.given(batch["text"])}
        scores = Discriminate(self, batch)(output.images[0], given, D=self.path).scores
        divergence = output.divergence.float().mean()
        batch.log("G/divergence", divergence)
        adversarial = torch.stack([softplus(-score.float()).mean() for score in scores.values()]).sum()
        return adversarial + self.divergence * divergence

    # Their parts ----------------------------------------------------------------------------------------------------

    def generate(self, batch: Batch, again: bool = False) -> GeneratorOutput:
        """The fakes of the batch's texts, on new noise or, ``again``, on that of the step before."""
        if not again:
            batch["z"] = batch.latent(self.prior)
            batch.update({f"noise/{k}": batch.randn(*shape) for k, shape in self.G.noise_shapes.items()})
        return self.G.generate(batch["z"], batch["text"], {k: batch[f"noise/{k}"] for k in self.G.noise_shapes})

    def given(self, text: Tensor) -> Tensor:
        """What D gets of embeddings [N, K]."""
        return text if self.condition == "text" else self.G.means(text).detach()

    def ships(self) -> dict[str, Any]:
        return {
            "kind": "text-to-image",
            "networks": ["G"],
            "prior": NORMAL,
            "pretrained": ["T"],
            "text": "T",
            "examples": list(self.examples),
        }
