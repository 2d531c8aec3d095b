"""StyleGAN's game: two styles in one image.

T. Karras, S. Laine, T. Aila, A Style-Based Generator Architecture for Generative Adversarial Networks, 2019, arXiv
1812.04948, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.game import Batch, Turn
from zoo.games.adversarial import Adversarial
from zoo.games.pggan import with_faded_reals
from zoo.networks.equalized import GrowingNetwork
from zoo.networks.stylegan import Styled, cuts
from zoo.registry import GAMES


@GAMES.register("stylegan")
class StyleGAN(Adversarial):
    """The adversarial game of a G with styles. If D grows, real images fade as in PGGAN's game.

    Arguments are those of :class:`~zoo.games.adversarial.Adversarial`, and ``mixing``: the probability that the images
    of a batch have the styles of two z, that of the second one from a layer on which is the same for all, and equally
    likely from the second to the last. Batch keys: those of the adversarial game, and ``second`` and ``cut`` for a
    ``mixing`` above 0. Raises ValueError for a G without styles or a ``mixing`` that is not from 0 to 1.
    """

    def __init__(self, networks: Mapping[str, nn.Module], mixing: float = 0.9, **options: Any):
        super().__init__(networks, **options)
        if not isinstance(self.G, Styled):
            raise ValueError(f"networks.G: must be a generator with styles, got {type(self.G).__name__}")
        if not 0 <= mixing <= 1:
            raise ValueError(f"game.mixing={mixing}: must be from 0 to 1")
        self.mixing_probability = mixing
        self.grows = isinstance(self.D, GrowingNetwork)

    def turns(self) -> Sequence[Turn]:
        turns = super().turns()
        return [with_faded_reals(turn, self.D) for turn in turns] if self.grows else turns

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        inputs = super().draw(batch)
        if self.mixing_probability:
            G: Any = self.G
            second = batch.latent(self.prior)
            inputs |= {"second": second, "cut": cuts(batch.once(2), G.style_count, self.mixing_probability)}
        return inputs

    def beside_z(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        mixed = {key: inputs[key] for key in ("second", "cut")} if self.mixing_probability else {}
        return {**super().beside_z(inputs), **mixed}

    def ships(self) -> dict[str, Any]:
        side = {"resolution": self.G.side} if self.grows else {}
        return {**super().ships(), "truncation": "w", **side}
