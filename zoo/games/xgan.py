"""XGAN: two autoencoders of two domains, a and b, with shared middle layers; decoding the code of one domain as the
other translates, without pairs.

A. Royer, K. Bousmalis, S. Gouws, F. Bertsch, I. Mosseri, F. Cole, K. Murphy, XGAN: Unsupervised Image-to-Image
Translation for Many-to-Many Mappings, 2017, arXiv 1711.05139, section 3. The authors published neither code nor the
weights of their terms. As in re-implementations a step of the autoencoders and the domain classifier comes first, then
one of D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn, check_domains
from zoo.networks.interfaces import DomainAutoencoders
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("xgan")
class XGAN(Game):
    """G, with ``encode_all`` and ``decode_all``, C, a classifier of the code's domain, D_b and perhaps D_a.

    With the codes e(a), e(b), of length 1, and the translations g(a), g(b), G minimizes, in Euclidean distances::

        |a - d_a(e(a))| + |b - d_b(e(b))| + semantic (|e(a) - e(g(a))| + |e(b) - e(g(b))|)
        - domain L_C - adversarial log D_b(g(a)) [- adversarial log D_a(g(b))] + teacher |T(a) - e(a)|

    and C, in the same step, L_C = -log C(e(a)) - log(1 - C(e(b))), whose gradient is reversed on its way to G.

    Args:
        networks: G and D_b; C unless ``domain`` is 0; D_a if the translations to a shall be realistic too, which they
            need not be in the paper.
        domain, semantic, adversarial: weights.
        teacher: weight of the distance between the codes of a and the batch's ``teacher``, features of a pretrained
            network as long as the code.
        domains: the names of a and b.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``a``, ``b`` and, with its weight, ``teacher``; writes ``fake_b`` and, with D_a, ``fake_a``.
    """

    takes = ("G", "D_b")
    G: DomainAutoencoders
    C: nn.Module

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        domain: float = 1.0,
        semantic: float = 1.0,
        adversarial: float = 1.0,
        teacher: float = 0.0,
        domains: Sequence[str] = ("a", "b"),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        check_domains(domains)
        if bool(domain) != ("C" in networks):
            raise ValueError(f"game.domain={domain}: must be 0 without a network C, and a weight with one")
        self.domain, self.semantic, self.adversarial = domain, semantic, adversarial
        self.teacher, self.domains = teacher, tuple(domains)
        self.needs = ("a", "b", "teacher") if teacher else ("a", "b")
        self.fakes = tuple(k for k in "ba" if f"D_{k}" in networks)
        self.pair = LOSSES.build(Spec("non-saturating"))

    def turns(self) -> Sequence[Turn]:
        players = ("G", "C") if self.domain else ("G",)
        return [
            Turn(players, self.loss_G),
            Turn([f"D_{k}" for k in self.fakes], self.loss_D, draw="last"),
        ]

    def loss_G(self, batch: Batch) -> Tensor:
        reals = {k: batch[k] for k in "ab"}
        codes = self.G.encode_all(reals)
        images = self.G.decode_all(codes)  # images[target][source]
        fakes = {"b": images["b"]["a"], "a": images["a"]["b"]}
        reconstruction = distance(images["a"]["a"], reals["a"]) + distance(images["b"]["b"], reals["b"])
        batch.log("G/reconstruction", reconstruction)
        loss = reconstruction
        if self.semantic:
            again = self.G.encode_all(fakes)
            semantic = distance(again["b"], codes["a"]) + distance(again["a"], codes["b"])
            batch.log("G/semantic", semantic)
            loss = loss + self.semantic * semantic
        if self.domain:
            loss = loss + self.loss_C(codes, batch)
        discriminate = Discriminate(self, batch)
        for k in self.fakes:
            batch[f"fake_{k}"] = fakes[k].detach()
            adversarial = self.pair.g(None, discriminate(fakes[k], D=f"D_{k}").score)
            batch.log(f"G/adversarial_{k}", adversarial)
            loss = loss + self.adversarial * adversarial
        if self.teacher:
            distillation = distance(codes["a"], batch["teacher"])
            batch.log("G/teacher", distillation)
            loss = loss + self.teacher * distillation
        return loss

    def loss_C(self, codes: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """L_C of codes by domain. C gets its gradient, the codes get it times -``domain``."""
        a, b = (self.C(reverse(codes[k], self.domain)) for k in "ab")
        loss: Tensor = self.pair.d(a, b)
        batch.log("C/domain", loss)
        return loss

    def loss_D(self, batch: Batch) -> Tensor:
        discriminate, losses = Discriminate(self, batch), []
        for k in self.fakes:
            real, fake = discriminate.both(Inputs(batch[k]), Inputs(batch[f"fake_{k}"]), D=f"D_{k}")
            batch.log(f"D_{k}/real", real.score.float().mean())
            batch.log(f"D_{k}/fake", fake.score.float().mean())
            losses.append(self.pair.d(real.score, fake.score))
        return torch.stack(losses).sum()

    def ships(self) -> dict[str, Any]:
        a, b = self.domains
        to = {k: {"network": "G", "parts": [other, k]} for k, other in ("ba", "ab")}
        return {"kind": "translate", "networks": ["G"], "to": to, "domains": {"a": a, "b": b}}


def reverse(x: Tensor, weight: float) -> Tensor:
    """x, whose gradient is multiplied by -``weight`` (gradient reversal, Ganin et al. 2016)."""
    return (1 + weight) * x.detach() - weight * x


def distance(x: Tensor, y: Tensor) -> Tensor:
    """The Euclidean distance of x to y, both [N, ...], a mean over the batch in float32."""
    return torch.linalg.vector_norm((x.float() - y.float()).flatten(1), dim=1).mean()
