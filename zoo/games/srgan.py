"""SRGAN: super-resolution in two games. SRResNet learns the mean squared error; SRGAN goes on from it with a
discriminator and the distance of features.

C. Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, 2017, arXiv
1609.04802, section 2. The low-resolution images are computed here from the real ones.

Differences from the paper: its adversarial loss is a sum over the batch, ours a mean, as the other terms; which player
comes first is not stated: D does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from zoo.data.views import shrink
from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn
from zoo.registry import GAMES, LOSSES, Spec

FEATURE_SCALE = 1 / 12.75  # of VGG's maps (section 3.2), which is about 0.006 of the loss


def pixel_distance(x: Tensor, y: Tensor) -> Tensor:
    """The squared distance of images (equation 4) or maps (equation 5) [N, C, H, W], a scalar in float32: the sum over
    channels, the mean over pixels and images."""
    return (x.float() - y.float()).square().sum(1).mean()


@GAMES.register("srresnet")
class SRResNetGame(Game):
    """G upscales images that were shrunk by its ``factor``, and minimizes the squared distance to the real ones.

    Args:
        networks: G; others stay as they are.

    Batch keys: reads ``x``.
    """

    takes: tuple[str, ...] = ("G",)

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__(networks)
        self.factor: int = getattr(self.G, "factor", 0)
        if self.factor < 2:
            raise ValueError(f"networks.G: must upscale images by a factor, got {type(self.G).__name__}")

    def turns(self) -> Sequence[Turn]:
        return [Turn(("G",), self.loss_G)]

    def upscale(self, batch: Batch) -> Tensor:
        """G's images [N, C, H, W] of real ones [N, C, H, W] in [-1, 1] that were shrunk."""
        low = shrink(batch["x"] / 2 + 0.5, self.factor)  # [N, C, H / factor, W / factor] in [0, 1]
        return self.G(low)

    def loss_G(self, batch: Batch) -> Tensor:
        return pixel_distance(self.upscale(batch), batch["x"])

    def ships(self) -> dict[str, Any]:
        return {"kind": "upscale", "networks": ["G"], "factor": self.factor, "input_range": [0, 1]}


@GAMES.register("srgan")
class SRGAN(SRResNetGame):
    """The same G against D; G minimizes a distance of content and ``adversarial`` times -log D(G(low)).

    Args:
        networks: G, D and, for features, phi.
        content: ``"features"``: the squared distance of phi's maps over 12.75; ``"pixels"``: that of SRResNet (the
            paper's SRGAN-MSE).
        adversarial: weight of the adversarial loss.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x``.
    """

    takes = ("G", "D")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        content: Literal["features", "pixels"] = "features",
        adversarial: float = 1e-3,
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        if content not in ("features", "pixels"):
            raise ValueError(f"game.content='{content}': must be features or pixels")
        if content == "features" and "phi" not in networks:
            raise ValueError(
                f"networks.phi: the distance of features needs a network phi (a pretrained one), got "
                f"{', '.join(networks)}; or take game.content=pixels"
            )
        self.content, self.adversarial = content, adversarial
        self.pair = LOSSES.build(Spec("non-saturating"))

    def turns(self) -> Sequence[Turn]:
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw="last")]

    def loss_D(self, batch: Batch) -> Tensor:
        fake = self.upscale(batch).detach()
        real, generated = Discriminate(self, batch).both(Inputs(batch["x"]), Inputs(fake))
        batch.log("D/real", real.score.float().mean())
        batch.log("D/fake", generated.score.float().mean())
        return self.pair.d(real.score, generated.score)

    def loss_G(self, batch: Batch) -> Tensor:
        fake = self.upscale(batch)
        content = self.distance(fake, batch["x"])
        adversarial = self.pair.g(None, Discriminate(self, batch)(fake).score)
        batch.log("G/content", content)
        batch.log("G/adversarial", adversarial)
        return content + self.adversarial * adversarial

    def distance(self, fake: Tensor, real: Tensor) -> Tensor:
        """The content loss of fakes and what they should be, a scalar."""
        if self.content == "pixels":
            return pixel_distance(fake, real)
        phi: nn.Module = self.get_submodule("phi")
        return FEATURE_SCALE**2 * pixel_distance(phi(fake), phi(real))
