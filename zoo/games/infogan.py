"""InfoGAN: the two-player game with a lower bound on the mutual information of codes and images.

X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever, P. Abbeel, InfoGAN: Interpretable Representation Learning by
Information Maximizing Generative Adversarial Nets, 2016, arXiv 1606.03657, equations 5 and 6. As in the authors' code
Q, and through it D's trunk, maximizes the bound in D's step, and G in its own; the paper gives Q to G's step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.game import Batch, Turn
from zoo.games.adversarial import Adversarial, check_head, with_head
from zoo.networks.interfaces import FeatureDiscriminator, FeatureHead
from zoo.priors import Codes
from zoo.registry import GAMES


@GAMES.register("infogan")
class InfoGAN(Adversarial):
    """G(z, c) against D(x), with Q(c|x) on D's features; every player maximizes ``information`` times the lower bound
    L_I = E log Q(c|G(z, c)) + H(c) <= I(c; G(z, c)).

    Categorical codes have a softmax, continuous ones a normal of deviation 1. Q gets fakes alone. Other arguments as
    :class:`~zoo.games.adversarial.Adversarial`. Raises ValueError if the prior has no codes, or Q outputs that do not
    fit them. The log holds L_I in nats, apart for the categorical codes (at most the sum of log K) and the continuous
    ones.
    """

    takes = ("G", "D", "Q")
    prior: Codes
    D: FeatureDiscriminator
    Q: FeatureHead

    def __init__(self, networks: Mapping[str, nn.Module], information: float = 1.0, **adversarial: Any):
        super().__init__(networks, **adversarial)
        if not isinstance(self.prior, Codes):
            raise ValueError(f"game.prior='{self.prior_spec.name}': must be a prior with codes")
        if self.Q.outputs != self.prior.outputs:
            raise ValueError(f"networks.Q.outputs={self.Q.outputs}: must be {self.prior.outputs} for these codes")
        check_head(self)
        self.information, self.joined = information, False

    def turns(self) -> Sequence[Turn]:
        """Those of the adversarial game; Q learns when D does."""
        return with_head(super().turns(), "Q")

    def loss_D(self, batch: Batch) -> Tensor:
        return super().loss_D(batch) - self.information * self.bound(batch)

    def loss_G(self, batch: Batch) -> Tensor:
        return super().loss_G(batch) - self.information * self.bound(batch)

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss_both(batch)
        information = self.information * self.bound(batch)
        D = losses["D"] - information
        return {"D": D, "Q": D, "G": losses["G"] - information}

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        """D's score [N]; Q's outputs for the same features are left in ``batch["Q"]``."""
        h = self.D.features(fake)
        batch["Q"] = self.Q(h)
        score = self.D.head(h)
        return score.squeeze(1) if score.dim() == 2 else score

    def bound(self, batch: Batch) -> Tensor:
        """L_I of the fakes that D has scored last, a scalar in float32."""
        predicted, true = self.prior.read(batch.pop("Q")), self.prior.split(batch["z"])
        discrete = continuous = batch["z"].new_zeros(()).float()
        for name, k in self.prior.sizes.items():
            if k:
                discrete = discrete + (true[name] * predicted[name]).sum(1).mean() + math.log(k)
            else:
                log_q = -0.5 * (true[name] - predicted[name]).square() - 0.5 * math.log(2 * math.pi)
                continuous = continuous + log_q.mean() + math.log(2.0)  # the entropy of U(-1, 1)
        batch.log("information/categorical", discrete)
        batch.log("information/continuous", continuous)
        return discrete + continuous

    def ships(self) -> dict[str, Any]:
        return {**super().ships(), "networks": ["G", "D", "Q"], "recognition": ["D", "Q"]}
