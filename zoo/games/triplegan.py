"""Triple-GAN: G generates images of classes, C classifies images, D tells true pairs of image and class from both.

C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291, equation 4 and algorithm 1,
in the order and with the losses of the authors' code: D, G, C once a batch; G and C minimize -log D, the paper log(1 -
D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.discriminate import Discriminate, keep_running_averages
from zoo.game import Batch, Game, Turn
from zoo.games.classification import classifier_loss
from zoo.networks.interfaces import ClassGenerator, Classifier
from zoo.priors import build_prior
from zoo.registry import GAMES, Spec


@GAMES.register("triplegan")
class TripleGAN(Game):
    """G(z, y), C(x), D(x, y).

    D's real pairs are its labeled images with their classes, and the unlabeled images ``own`` with C's most likely
    classes; its fake pairs are, with weight 1 - ``alpha``, G's, and with ``alpha``, the images ``x`` with C's most
    likely classes. Classes of G's images: all in turn, as many of each as possible.

    Args:
        networks: G, D and C.
        prior: Spec of G's noise.
        alpha: weight of C's pairs among the fake ones.
        adversarial: weight of C's adversarial loss, whose gradient goes through the probability of C's choice.
        pseudo: weight of C's cross-entropy on G's images, a buffer for a schedule.
        entropy, balance, decay: see :func:`~zoo.games.classification.classifier_loss`.

    Batch keys: reads ``x``, ``own``, ``labeled`` and ``y`` for C, ``labeled_D`` and ``y_D`` for D.
    """

    takes = ("G", "D", "C")
    needs = ("x", "own", "labeled", "y", "labeled_D", "y_D")
    G: ClassGenerator
    C: Classifier
    pseudo: Tensor

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
        self.whole_batch = "the balance of classes" if balance else ""
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
        images, classes = torch.cat([batch["own"], batch["labeled_D"]]), torch.cat([own, batch["y_D"]])
        discriminate = Discriminate(self, batch)
        real = discriminate(images, {"y": classes}).score.float()
        on_G, on_C = (discriminate(i, {"y": of}).score.float() for i, of in ((fake, y), (batch["x"], x)))
        for name, score in (("real", real), ("fake", on_G), ("classified", on_C)):
            batch.log(f"D/{name}", score.mean())
        on_fake = (1 - self.alpha) * softplus(on_G).mean() + self.alpha * softplus(on_C).mean()
        return softplus(-real).mean() + on_fake

    def loss_G(self, batch: Batch) -> Tensor:
        fake, y = self.fakes(batch)
        return (1 - self.alpha) * softplus(-Discriminate(self, batch)(fake, {"y": y}).score.float()).mean()

    def loss_C(self, batch: Batch) -> Tensor:
        unlabeled = self.C.logits(batch["x"])
        probability, choice = unlabeled.float().softmax(1).max(1)
        score = Discriminate(self, batch)(batch["x"], {"y": choice}).score
        adversarial = probability * softplus(-score.float())
        loss = classifier_loss(self.C, batch, unlabeled, self.weights)
        loss = loss + self.adversarial * self.alpha * adversarial.mean()
        fake, y = self.fakes(batch)
        with keep_running_averages(self.C):  # the running averages that C is tested with are of reals
            logits = self.C.logits(fake)
        return loss + self.pseudo * F.cross_entropy(logits.float(), y)

    def fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """G's images [N, C, H, W] on fresh noise, and their classes [N]."""
        device, classes = batch.device, self.G.classes  # a sampler must not hold the batch
        y = batch.draw(lambda n: torch.arange(n, device=device) % classes)
        return self.G(batch.latent(self.prior), y=y), y

    def ships(self) -> dict[str, Any]:
        return {"kind": "image", "networks": ["G", "C"], "prior": self.prior_spec, "classifier": "C"}
