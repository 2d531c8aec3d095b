"""Three players: G makes images of classes, C gives images classes, D tells true pairs from both.

C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291, equation 4 and algorithm 1, in the
order and with the losses of the authors' code: D, G, C once a batch; G and C lower -log D where the paper has log(1 - D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.game import Batch, Game, Turn
from zoo.games.classification import classifier_loss
from zoo.penalties import keep_running_averages
from zoo.priors import build_prior
from zoo.registry import GAMES, Spec


@GAMES.register("triplegan")
class TripleGAN(Game):
    """G(z, y), C(x), D(x, y), on unlabeled images ``x``, on others ``own`` for D's true pairs, on ``labeled`` ones with
    classes ``y`` for C and ``labeled_D`` with ``y_D`` for D.

    D holds as true: D's labeled pairs and ``own`` with the classes that C finds likeliest; as made, with weight 1 - ``alpha``,
    G's, and with ``alpha``, x with C's likeliest. ``adversarial``: weight of C's part in that, which goes back through the
    probability that C gives to the class it chose. ``pseudo``: weight of C's cross-entropy on G's images, a buffer for a schedule.
    ``entropy``, ``balance``, ``decay``: see ``classifier_loss``. Classes of fakes: all in turn, as many of each as can be.
    """

    takes = ("G", "D", "C")
    needs = ("x", "own", "labeled", "y", "labeled_D", "y_D")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        prior: Spec = Spec("normal"),
        alpha: float = 0.5,
        adversarial: float = 1.0,
        pseudo: float = 0.0,
        entropy: float = 0.0,
        balance: float = 0.0,
        decay: float = 0.0,
    ):
        super().__init__(networks)
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)
        self.alpha, self.adversarial = alpha, adversarial
        self.weights = {"entropy": entropy, "balance": balance, "decay": decay}
        self.register_buffer("pseudo", torch.tensor(float(pseudo)))

    def turns(self) -> Sequence[Turn]:
        return [
            Turn(("D",), self.loss_D),
            Turn(("G",), self.loss_G, draw=None),
            Turn(("C",), self.loss_C, draw="last"),
        ]

    def loss_D(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            own, x = (self.C.logits(batch[k]).argmax(1) for k in ("own", "x"))
            fake, y = self.fakes(batch)
        true = self.D(torch.cat([batch["own"], batch["labeled_D"]]), y=torch.cat([own, batch["y_D"]])).float()
        made, named = self.D(fake, y=y).float(), self.D(batch["x"], y=x).float()
        for name, score in (("real", true), ("fake", made), ("named", named)):
            batch.log(f"D/{name}", score.mean())
        on_made = (1 - self.alpha) * softplus(made).mean() + self.alpha * softplus(named).mean()
        return softplus(-true).mean() + on_made

    def loss_G(self, batch: Batch) -> Tensor:
        fake, y = self.fakes(batch)
        return (1 - self.alpha) * softplus(-self.D(fake, y=y).float()).mean()

    def loss_C(self, batch: Batch) -> Tensor:
        unlabeled = self.C.logits(batch["x"])
        sure, chosen = unlabeled.float().softmax(1).max(1)
        fooled = sure * softplus(-self.D(batch["x"], y=chosen).float())
        loss = classifier_loss(self.C, batch, unlabeled, self.weights) + self.adversarial * self.alpha * fooled.mean()
        fake, y = self.fakes(batch)
        with keep_running_averages(self.C):  # the running averages that C is tested with are of reals
            named = self.C.logits(fake)
        return loss + self.pseudo * F.cross_entropy(named.float(), y)

    def fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """G's images on fresh noise, and their classes."""
        y = batch.draw(lambda n: torch.arange(n, device=batch.device) % self.G.classes)
        return self.G(batch.latent(self.prior), y=y), y

    def ships(self) -> dict[str, Any]:
        return {"kind": "image", "networks": ["G", "C"], "prior": self.prior_spec, "classifier": "C"}
