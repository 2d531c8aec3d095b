"""LAPGAN: one level of a Laplacian pyramid, which generates from noise and a coarser image what that image lacks.

E. Denton, S. Chintala, A. Szlam, R. Fergus, Deep Generative Image Models using a Laplacian Pyramid of Adversarial
Networks, 2015, arXiv 1506.05751, section 2.2. A stage trains one level: its G and D learn from coarser versions of real
images, alone; the other levels are frozen. Only sampling goes through all levels. The order is that of the authors'
code: one step of D, then one of G on fresh noise and on the coarser versions of other images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn
from zoo.networks.interfaces import Pyramid
from zoo.networks.lapgan import pyramid, upsample
from zoo.priors import Prior
from zoo.registry import GAMES, LOSSES, PRIORS, Spec


class Pictures(NamedTuple):
    """Images ``h`` [N, C, H, W] of a level, the enlarged coarser images ``l`` they start from (None at level 0), and
    their classes ``y`` [N]."""

    h: Tensor
    l: Tensor | None
    y: Tensor | None

    def inputs(self) -> Inputs:
        """What D gets."""
        return Inputs(self.h, {k: v for k, v in (("l", self.l), ("y", self.y)) if v is not None})


@GAMES.register("lapgan")
class LAPGAN(Game):
    """``G.levels[level](z, l, y)`` -> h against ``D.levels[level](h, l, y)``; level 0 has no l and generates whole
    images.

    Args:
        networks: G and D, with as many levels of the same sizes.
        level: which one learns, 0 for the coarsest.
        loss: Spec in LOSSES.
        prior: of the noise, whose size is the level's.
        generator_batch: samples in G's step.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x``, real images at the finest size; from level 1 on also ``c``, other ones, whose coarser
    versions G starts from (a second stream, so that a fake's image is not among the reals beside it). With classes
    ``y`` and, of c, ``y_c``; level 0 draws those of its fakes.
    """

    takes = ("G", "D")
    G: Pyramid
    D: Pyramid

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        level: int,
        loss: Spec = Spec("non-saturating"),
        prior: Spec = Spec("normal"),
        generator_batch: int | None = None,
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        sizes = self.G.sizes
        if not 0 <= level < len(sizes):
            raise ValueError(f"game.level={level}: must be from 0 to {len(sizes) - 1}")
        if self.D.sizes != sizes:
            raise ValueError(f"networks.D.sizes={self.D.sizes}: must be those of G, {sizes}")
        if "dim" in prior.kwargs:
            raise ValueError(
                f"game.prior.dim={prior.kwargs['dim']}: must be left out; it is networks.G.noise of the level"
            )
        self.level, self.pair, self.prior_spec = level, LOSSES.build(loss), prior
        self.prior: Prior = PRIORS.build(prior.replace(dim=self.G.noise[level]))
        self.generator_batch = generator_batch
        images = ("x", "c") if level else ("x",)
        classes = {"x": "y", "c": "y_c"}
        self.needs = (*images, *(classes[k] for k in images)) if self.conditional else images

    def turns(self) -> Sequence[Turn]:
        return [
            Turn((f"D.levels.{self.level}",), self.loss_D),
            Turn(
                (f"G.levels.{self.level}",),
                self.loss_G,
                batch=self.generator_batch,
                draw="fresh" if self.level or self.pair.relative else None,
            ),
        ]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images [N, C, H, W] at the finest size -> h and l of this level; at level 0 the coarsest image and None."""
        images = pyramid(x, self.G.sizes[max(self.level - 1, 0) :])
        if not self.level:
            return images[0], None
        coarse, image = images[:2]
        l = upsample(coarse, image.shape[-1])
        return image - l, l

    def fakes(self, batch: Batch) -> Pictures:
        """G's images on fresh noise."""
        z = batch.latent(self.prior)
        l = self.split(batch["c"])[1] if self.level else None
        y = None
        if self.conditional:
            y = batch["y_c"] if self.level else batch.randint(self.G.classes)
        return Pictures(self.G.levels[self.level](z, l, y), l, y)

    def scores(self, batch: Batch, fakes: Pictures) -> tuple[Tensor, Tensor]:
        """D's scores [N] of real images and of fakes, from one pass."""
        h, l = self.split(batch["x"])
        reals = Pictures(h, l, batch["y"] if self.conditional else None)
        both = Discriminate(self, batch).both(reals.inputs(), fakes.inputs(), D=f"D.levels.{self.level}")
        real, fake = (inputs.score for inputs in both)
        batch.log("D/real", real.float().mean())
        batch.log("D/fake", fake.float().mean())
        return real, fake

    def loss_D(self, batch: Batch) -> Tensor:
        fakes = self.fakes(batch)
        return self.pair.d(*self.scores(batch, fakes._replace(h=fakes.h.detach())))

    def loss_G(self, batch: Batch) -> Tensor:
        fakes = self.fakes(batch)
        if self.pair.relative:
            return self.pair.g(*self.scores(batch, fakes))
        x, given, *_ = fakes.inputs()
        return self.pair.g(None, Discriminate(self, batch)(x, given, D=f"D.levels.{self.level}").score)

    def ships(self) -> dict[str, Any]:
        """The generator as far as it has been trained: noise for the levels up to this one, images of this one's
        size."""
        noise = self.G.noise[: self.level + 1]
        return {
            "kind": "image",
            "networks": ["G"],
            "prior": self.prior_spec.replace(dim=sum(noise)),
            "resolution": self.G.sizes[self.level],
        }
