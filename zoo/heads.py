"""Heads: parts of a game on D's features, beside its penalties. A game may have several.

A head belongs to a network, which is a player that learns when D does (a path such as ``"C"``), or to a layer of D
itself (``"D.head"``). D minimizes ``loss_D``, G minimizes ``loss_G``, both scalars in float32, in addition to the
adversarial loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo import parallel
from zoo.discriminate import Discriminate, DiscriminatorOutput, Given, Inputs
from zoo.game import Batch
from zoo.priors import Codes
from zoo.registry import HEADS

if TYPE_CHECKING:
    from zoo.games.adversarial import Adversarial


class Head(nn.Module):
    """What a head does unless it says otherwise: it reads the features of nothing and adds no loss.

    ``network``: its path in the game, also the name of its outputs. ``D``: whose features it reads. ``reads_real``,
    ``reads_fake``: whether it gets those of real and of fake images. ``changes_given``: D's score depends on its output
    (:meth:`given`), so that it is read in every pass that has a score. ``needs``: keys that the data must have.
    ``takes_unlabeled``: whether it learns from images of which some have no label, ``y`` = -1.
    """

    D = "D"
    reads_real = reads_fake = True
    changes_given = False
    needs: tuple[str, ...] = ()
    takes_unlabeled = False

    def __init__(self, network: str):
        super().__init__()
        self.network = network

    def check(self, game: Adversarial) -> None:
        """Called once, before the first round. Raises ValueError if the head does not fit the game."""

    def read(self, game: nn.Module, features: Tensor, given: Given) -> Tensor:
        """The head's output for D's features [N, ...]."""
        output: Tensor = game.get_submodule(self.network)(features)
        return output

    def given(self, output: Tensor, given: Given) -> Given:
        """Conditions of D's score that follow from the head's output, by name (a predicted class); only with
        ``changes_given``."""
        return {}

    def real(self, batch: Batch) -> Inputs | None:
        """The head's own real images, of which ``loss_D`` gets features and head instead of the output for the game's;
        D is asked about them first."""
        return None

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor | None:
        """What D and the head's network minimize, from D's outputs for real and fake images; None: nothing. It may ask
        ``discriminate`` about other images (rotated ones)."""
        return None

    def loss_G(self, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate) -> Tensor | None:
        """What G minimizes; None: nothing."""
        return None

    def ships(self, game: nn.Module) -> dict[str, Any]:
        """What it adds to the Model that a run leaves; ``networks`` are those that G's do not include."""
        return {}

    def extra_repr(self) -> str:
        return f"network={self.network!r}"


@HEADS.register("class")
class ClassHead(Head):
    """Odena et al. 2016, section 3 (AC-GAN): D and G both minimize the cross-entropy of the class, D of real and of
    fake images, G of fakes.

    ``network``: the network that maps features to logits of the ``classes`` of G. Batch keys: reads ``y``, ``y_fake``.
    The log has both cross-entropies, in nats.
    """

    needs = ("y",)

    def __init__(self, network: str = "C"):
        super().__init__(network)

    def check(self, game: Adversarial) -> None:
        classes = getattr(game.get_submodule(self.network), "classes", None)
        if not game.classes or game.classes != classes:
            raise ValueError(
                f"networks.G.classes={game.classes}: must be the classes of the head {self.network}, "
                f"which has {classes}"
            )

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        return self._loss(real, "real", batch["y"], batch) + self._loss(fake, "fake", batch["y_fake"], batch)

    def loss_G(self, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate) -> Tensor:
        return self._loss(fake, "fake", batch["y_fake"], batch)

    def _loss(self, output: DiscriminatorOutput, kind: str, y: Tensor, batch: Batch) -> Tensor:
        loss = cross_entropy(output.heads[self.network].float(), y)
        batch.log(f"{self.network}/{kind}", loss)
        return loss


@HEADS.register("codes")
class CodesHead(Head):
    """Chen et al. 2016, eq. 5 and 6 (InfoGAN): D and G maximize ``information`` times the lower bound
    L_I = E log Q(c|G(z, c)) + H(c) <= I(c; G(z, c)).

    As in the authors' code Q, and through it D's trunk, maximizes the bound in D's step, and G in its own; the paper
    gives Q to G's step. Categorical codes have a softmax, continuous ones a normal of deviation 1. Q gets fakes alone.
    Raises ValueError if the game's prior has no codes, or Q outputs that do not fit them. Batch keys: reads ``z``. The
    log has L_I in nats, apart for the categorical codes (at most the sum of log K) and the continuous ones.
    """

    reads_real = False
    prior: Codes

    def __init__(self, network: str = "Q", information: float = 1.0):
        super().__init__(network)
        self.information = information

    def check(self, game: Adversarial) -> None:
        if not isinstance(game.prior, Codes):
            raise ValueError(f"game.prior='{game.prior_spec.name}': must be a prior with codes")
        self.prior, outputs = game.prior, getattr(game.get_submodule(self.network), "outputs", None)
        if outputs != self.prior.outputs:
            raise ValueError(f"networks.{self.network}.outputs={outputs}: must be {self.prior.outputs} for these codes")

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        return -self.information * self.bound(fake, batch)

    def loss_G(self, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate) -> Tensor:
        return -self.information * self.bound(fake, batch)

    def bound(self, fake: DiscriminatorOutput, batch: Batch) -> Tensor:
        """L_I of the fakes, a scalar in float32."""
        predicted, true = self.prior.read(fake.heads[self.network]), self.prior.split(batch["z"])
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

    def ships(self, game: nn.Module) -> dict[str, Any]:
        return {"networks": ["D", self.network], "recognition": ["D", self.network]}


@HEADS.register("rotation")
class RotationHead(Head):
    """Lucic et al. 2019 (S3GAN): D's layer ``rotation`` tells by how many quarter turns an image is rotated. D learns
    it from reals, G's images are to make it easy; both minimize a cross-entropy, in nats in the log.

    The last batch / (4 ``fraction``) images of a batch, at least one, of each process are shown at all four angles.
    Upright they are part of D's usual pass, the other three get one of their own, which is not scored.

    Args:
        fraction: the batch is so many times as large as the number of images at all angles.
        weight_D, weight_G: of the cross-entropy in D's and in G's loss.
    """

    reads_real = reads_fake = False
    whole_batch = "the part of the batch that is rotated"

    def __init__(self, fraction: int = 4, weight_D: float = 1.0, weight_G: float = 0.2):
        super().__init__("D.rotation")
        self.fraction, self.weight_D, self.weight_G = fraction, weight_D, weight_G

    def check(self, game: Adversarial) -> None:
        require_layer(game, self.network, "rotation=true")
        if not game.adversarial_weight:
            raise ValueError("game.adversarial_weight=0: must be another number for the rotation head, which reads the "
                             "features of the pass that is scored")  # fmt: skip

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        return self.weight_D * self.entropy("real", real, batch["x"], batch, discriminate)

    def loss_G(self, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate) -> Tensor:
        return self.weight_G * self.entropy("fake", fake, batch["fake"], batch, discriminate)

    def entropy(
        self, kind: str, upright: DiscriminatorOutput, x: Tensor, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        """The mean cross-entropy over images and angles, a scalar in float32. ``upright``: D's output for x."""
        n = max(1, len(x) // (4 * self.fraction))
        rotated = torch.cat([torch.rot90(x[-n:], r, (2, 3)) for r in (1, 2, 3)])  # [3n, C, H, W]
        others = discriminate(rotated, score=False)
        assert upright.features is not None and others.features is not None
        features = torch.cat([upright.features[-n:], others.features])
        logits = self.read(discriminate.game, features, {}).float()  # [4n, 4]
        turns = torch.arange(4, device=x.device).repeat_interleave(n)
        loss = cross_entropy(logits, turns)
        batch.log(f"{self.network}/{kind}", loss)
        return loss


@HEADS.register("predicted-class")
class PredictedClassHead(Head):
    """Lucic et al. 2019 (S2GAN-CO): D's layer ``predictor`` learns the classes of the labeled reals; D's score of a
    real without a label (-1) takes the most likely class, without gradient. Fakes have their classes.

    ``weight``: of the cross-entropy, the mean over the labeled reals, 0 if there are none. Batch keys: reads ``y``. The
    log has it, in nats, and its share of wrong classes.
    """

    changes_given, whole_batch, needs = True, "the mean over the labeled reals", ("y",)
    takes_unlabeled = True

    def __init__(self, weight: float = 1.0):
        super().__init__("D.predictor")
        self.weight = weight

    def check(self, game: Adversarial) -> None:
        require_layer(game, self.network, "predictor=true")

    def given(self, output: Tensor, given: Given) -> Given:
        return {"y": torch.where(given["y"] < 0, output.argmax(1), given["y"])}

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        logits, y = real.heads[self.network].float(), batch["y"]
        # The mean over the processes: that of the gradients then is the gradient of the mean over the whole batch.
        labeled = parallel.mean((y >= 0).sum().float()).clamp(min=1 / parallel.world())
        loss = cross_entropy(logits, y, ignore_index=-1, reduction="sum") / labeled
        batch.log(f"{self.network}/real", loss)
        batch.log(f"{self.network}/error", ((logits.argmax(1) != y) & (y >= 0)).sum() / labeled)
        return self.weight * loss


def require_layer(game: Adversarial, path: str, option: str) -> None:
    """Raises ValueError unless the game has a submodule ``path``, a layer of D that the ``option`` adds."""
    network, _, layer = path.partition(".")
    if not hasattr(game.get_submodule(network), layer):
        kind = type(game.get_submodule(network)).__name__
        raise ValueError(f"networks.{network}: must have a layer {layer} for its head ({option}), got {kind}")


@HEADS.register("labeled-classes")
class LabeledClassesHead(Head):
    """Salimans et al. 2016, section 5 (Improved GAN): D classifies into K + 1 classes, the K classes of a few labeled
    images and "fake", whose logit is fixed at 0. D(x) = Z / (Z + 1), with Z the sum of exp of the K class logits, is
    the score of D itself; this head adds the cross-entropy of the labeled images.

    D ships beside G as a classifier, unless its logits of an image depend on other images of the batch (minibatch
    features). ``network``: the layer of D with the class logits. Batch keys: reads ``labeled``, ``y``.
    """

    reads_real = reads_fake = False
    needs = ("labeled", "y")

    def __init__(self, network: str = "D.head"):
        super().__init__(network)

    def check(self, game: Adversarial) -> None:
        if not hasattr(game.D, "logits"):
            raise ValueError(
                f"networks.D: must be a discriminator with a logit for each class, got {type(game.D).__name__}"
            )

    def real(self, batch: Batch) -> Inputs:
        return Inputs(batch["labeled"])

    def loss_D(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput, batch: Batch, discriminate: Discriminate
    ) -> Tensor:
        logits = real.heads[self.network].float()
        batch.log("D/labeled-error", (logits.argmax(1) != batch["y"]).float().mean())
        return cross_entropy(logits, batch["y"])

    def ships(self, game: nn.Module) -> dict[str, Any]:
        # Batch norm mixes the batch in training too, but has running averages when a classifier is used.
        if any(getattr(m, "mixes_batch", False) for m in game.get_submodule("D").modules()):
            return {}
        return {"networks": ["D"], "classifier": "D"}


def add_to_model(spec: Mapping[str, Any], heads: Any, game: nn.Module) -> dict[str, Any]:
    """The spec of a game's Model with what its heads add; networks are joined, without repetition."""
    result = dict(spec)
    for head in heads:
        more = head.ships(game)
        result = {**result, **more, "networks": list(dict.fromkeys([*result["networks"], *more.get("networks", ())]))}
    return result
