"""StarGAN: one generator translates between all domains of a data set; D also classifies the domain.

Y. Choi, M. Choi, M. Kim, J.-W. Ha, S. Kim, J. Choo, StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation, 2017, arXiv 1711.09020, section 3, in the order of the authors' code: ``n_critic`` steps of
D, each on a new batch, then one of G on the last of them.

Left out: training on two data sets with different labels, whose domains are joined with a mask (section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from zoo import parallel
from zoo.discriminate import Discriminate, DiscriminatorOutput, Inputs
from zoo.game import Batch, Game, Turn, check_identity
from zoo.heads import Head
from zoo.networks.mlp import one_hot
from zoo.penalties import GradientPenalty
from zoo.registry import GAMES, Spec


class DomainHead(Head):
    """The cross-entropy of the domain, which D minimizes for real images and G for its own. Of attributes it is the sum
    over them of the binary ones. Batch keys: reads ``domain_real``, ``domain_fake``, float [N, domains]."""

    reads_fake = False

    def __init__(self, network: str, binary: bool):
        super().__init__(network)
        self.binary = binary

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        return self._loss(real, batch["domain_real"])

    def loss_G(self, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate) -> Tensor:
        return self._loss(fake, batch["domain_fake"])

    def _loss(self, output: DiscriminatorOutput, domain: Tensor) -> Tensor:
        logits = output.heads[self.network].float()
        if self.binary:
            return binary_cross_entropy_with_logits(logits, domain.float(), reduction="sum") / len(domain)
        return cross_entropy(logits, domain.float())


@GAMES.register("stargan")
class StarGAN(Game):
    """G(x, domain) against D(x), which has a layer ``domain``. With the domain c' of x, a domain c that is another
    image's, y = G(x, c), and u on the lines between x and y::

        D minimizes  E D(y) - E D(x) + classify CE(x, c') + penalty E (|grad D(u)| - 1)^2
        G minimizes  -E D(y) + classify CE(y, c) + cycle (|G(y, c') - x| + identity |G(x, c') - x|)

    means over the batch and over patches and pixels; in the gradient the patches are summed.

    Args:
        networks: G and D.
        label_names: those of the data's labels and attributes, by key.
        key: of the domain: a label, which gives one domain a value, or attributes.
        attributes: those that are used, by name; () for a label.
        exclusive: of them those of which a translation has one, such as colors of hair.
        classify, cycle, penalty: weights.
        identity: weight, relative to ``cycle``: 0 in the paper. As in CycleGAN it keeps colors.
        n_critic: steps of D for one of G.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``x`` and ``key``; writes ``domain_real``, ``domain_fake``.
    """

    takes = ("G", "D")
    columns: Tensor

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        label_names: Mapping[str, Sequence[str]],
        key: str = "domain",
        attributes: Sequence[str] = (),
        exclusive: Sequence[str] = (),
        classify: float = 1.0,
        cycle: float = 10.0,
        penalty: float = 10.0,
        identity: float = 0.0,
        n_critic: int = 5,
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        check_identity(identity, cycle)
        self.needs = ("x", key)
        names = label_names.get(key, attributes)
        if not names:
            raise ValueError(f"'{key}' of the data must have a name for each domain, got none")
        for name in attributes:
            if name not in names:
                raise ValueError(f"game.attributes: must be names of '{key}', which has no {name}")
        for name in exclusive:
            if name not in attributes:
                raise ValueError(f"game.exclusive: must be some of game.attributes, got {name}")
        self.key, self.names, self.exclusive = key, tuple(attributes or names), tuple(exclusive)
        self.binary = bool(attributes)
        for network in self.takes if key in label_names else ():
            domains = getattr(getattr(self, network), "domains", None)
            if len(self.names) != domains:
                raise ValueError(
                    f"networks.{network}.domains={domains}: must be the number of domains, {len(self.names)}"
                )
        self.classify, self.cycle, self.identity, self.n_critic = classify, cycle, identity, n_critic
        self.penalty = GradientPenalty(penalty)
        self.head = DomainHead("D.domain", self.binary)
        self.heads = (self.head,)
        columns = [names.index(name) for name in attributes]
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def turns(self) -> Sequence[Turn]:
        return [
            Turn(("D",), self.loss_D, repeat=self.n_critic, before=self.choose),
            Turn(("G",), self.loss_G, draw="last"),
        ]

    def choose(self, batch: Batch) -> None:
        """The domains as numbers [N, domains], and those of the translations: the images' own in another order."""
        labels = batch[self.key]
        dtype = batch["x"].dtype
        if self.binary:
            real = labels.index_select(1, self.columns).to(dtype)
        else:
            real = one_hot(labels, len(self.names), dtype)
        order = batch.draw(lambda n: torch.randperm(n, generator=batch.generator, device=batch.device))
        batch["domain_real"], batch["domain_fake"] = real, parallel.gather(real)[order]

    def loss_D(self, batch: Batch) -> Tensor:
        discriminate, head = Discriminate(self, batch), self.head
        fake = self.G(batch["x"], batch["domain_fake"]).detach()
        real, fake = discriminate.both(Inputs(batch["x"]), Inputs(fake), heads=([head.network], []))
        adversarial = fake.score.float().mean() - real.score.float().mean()
        assert real.output is not None and fake.output is not None
        classification = head.loss_D(real.output, fake.output, batch, discriminate)
        penalty = self.penalty(discriminate, real, fake, batch)
        batch.log("D/adversarial", adversarial)
        batch.log("D/domain", classification)
        batch.log("D/penalty", penalty)
        return adversarial + self.classify * classification + self.penalty.weight * penalty

    def loss_G(self, batch: Batch) -> Tensor:
        discriminate, head = Discriminate(self, batch), self.head
        fake = self.G(batch["x"], batch["domain_fake"])
        output = discriminate(fake, heads=[head.network])
        adversarial = -output.score.float().mean()
        classification = head.loss_G(output, batch, discriminate)
        cycle = self._back(fake, batch)
        batch.log("G/adversarial", adversarial)
        batch.log("G/domain", classification)
        batch.log("G/cycle", cycle)
        loss = adversarial + self.classify * classification + self.cycle * cycle
        if self.identity:
            identity = self._back(batch["x"], batch)
            batch.log("G/identity", identity)
            loss = loss + self.cycle * self.identity * identity
        return loss

    def _back(self, x: Tensor, batch: Batch) -> Tensor:
        """The L1 distance of the batch's images to x, translated to their own domains."""
        return (self.G(x, batch["domain_real"]).float() - batch["x"].float()).abs().mean()

    def ships(self) -> dict[str, Any]:
        """Of attributes the images keep the others, as D recognizes them: so D ships beside G."""
        if self.binary:
            return {"kind": "translate", "networks": ["G", "D"], "to": self._attributes()}
        to = {}
        for k, name in enumerate(self.names):
            domain = [float(i == k) for i in range(len(self.names))]
            of = [{self.key: i} for i in range(len(self.names)) if i != k]
            to[name] = {"network": "G", "domain": domain, "where": {self.key: k}, "of": of}
        return {"kind": "translate", "networks": ["G"], "to": to}

    def _attributes(self) -> dict[str, Any]:
        """A direction for each attribute, and one without it unless it is exclusive."""
        to = {}
        for name in self.names:
            for value in (1, 0) if name not in self.exclusive else (1,):
                domain: list[float | None] = [None] * len(self.names)
                for i, other in enumerate(self.names):
                    if other == name or {name, other} <= set(self.exclusive):
                        domain[i] = float(value == (other == name))
                label = name.lower() if value else f"not_{name.lower()}"
                to[label] = {
                    "network": "G",
                    "domain": domain,
                    "recognizer": "D",
                    "where": {f"{self.key}.{name}": value},
                    "keep": [f"{self.key}.{n}" for n, v in zip(self.names, domain, strict=True) if v is None],
                }
        return to
