"""The game of two players, G and D, which serves most papers (Goodfellow et al. 2014, algorithm 1).

k steps of D, then one of G, each on fresh noise; the recipe chooses the loss, the penalties, the order and what else
the paper fixes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.discriminate import Discriminate, DiscriminatorOutput, Inputs
from zoo.game import Batch, Draw, Game, Turn, usual
from zoo.heads import Head, add_to_model
from zoo.penalties import Penalty
from zoo.priors import build_prior
from zoo.registry import GAMES, HEADS, LOSSES, PENALTIES, Spec

Times = int | Callable[[int], int]
Update = Callable[[Batch], None] | None
NO_OUTPUT = DiscriminatorOutput({}, None, {})


@GAMES.register("adversarial")
class Adversarial(Game):
    """G(z[, y]) against D(x[, y]).

    Args:
        networks: G and D, and those of the heads.
        loss: Spec in LOSSES.
        penalties: Specs in PENALTIES; one with ``every`` > 1 gets a turn of its own, its weight multiplied by the
            usual number of its player's steps in ``every`` rounds (lazy regularization); the others join the loss of
            their player.
        heads: Specs in HEADS. A head's network learns when D does, except in a penalty's own turn.
        prior: Spec in PRIORS.
        order: ``"D-first"``, ``"G-first"`` or ``"simultaneous"`` (both from one forward on the same noise and old
            weights).
        n_critic, n_generator: D's and G's steps a round, numbers or ``Rounds``.
        generator_batch: samples in G's step if the paper has its own number (WGAN-GP, SNGAN: 128 beside D's 64).
        noise: ``"fresh"`` in each step, or ``"shared"``: G's step uses the noise of the last D step (LSGAN's code).
        reals: in G's step, if its loss or classes come from reals, those of D's ``"last"`` step or ``"fresh"`` ones.
        labels: the classes of fakes, for a G that takes classes: ``"uniform"``, or those of the ``"real"`` images.
        joined: D gets reals and fakes in one pass if that changes no score (``"auto"``), or in two (``"never"``): for a
            D with spectral normalization, which makes a power iteration in each pass.
        clip: before each D step every weight of D is clipped to [-clip, clip] (WGAN).
        adversarial_weight: factor on G's adversarial loss; at 0 G learns from penalties and heads alone (feature
            matching).
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.
        output_mean: before the first round G is set to start at the mean image (``G.set_output_mean``; GAN).

    Batch keys: reads ``x``, if G or D takes classes ``y``, and what heads read; writes ``z``, ``y_fake``, ``fake``, for
    a G with noise inputs ``noise/NAME``, and for a loss with memory ``real_score`` and ``fake_score``.
    """

    takes: tuple[str, ...] = ("G", "D")
    adapts_augment = True
    penalties: Sequence[Penalty]
    heads: Sequence[Head]

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("non-saturating"),
        penalties: Sequence[Spec] = (),
        heads: Sequence[Spec] = (),
        prior: Spec = Spec("normal"),
        order: Literal["D-first", "G-first", "simultaneous"] = "D-first",
        n_critic: Times = 1,
        n_generator: Times = 1,
        generator_batch: int | None = None,
        noise: Literal["fresh", "shared"] = "fresh",
        reals: Literal["last", "fresh"] = "last",
        labels: Literal["uniform", "real"] = "uniform",
        joined: Literal["auto", "never"] = "auto",
        clip: float | None = None,
        adversarial_weight: float = 1.0,
        augment: Spec | None = None,
        output_mean: bool = False,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        for key, value, choices in (
            ("order", order, ("D-first", "G-first", "simultaneous")),
            ("noise", noise, ("fresh", "shared")),
            ("reals", reals, ("last", "fresh")),
            ("labels", labels, ("uniform", "real")),
            ("joined", joined, ("auto", "never")),
        ):
            if value not in choices:
                raise ValueError(f"game.{key}='{value}': must be {', '.join(choices[:-1])} or {choices[-1]}")
        self.pair = LOSSES.build(loss)
        if order == "G-first" and hasattr(self.pair, "update"):
            raise ValueError(
                f"game.order='G-first': must be another one, since game.loss='{loss.name}' needs the scores of D's step"
            )
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)
        self.order, self.n_critic, self.n_generator = order, n_critic, n_generator
        self.generator_batch, self.noise, self.labels, self.clip = generator_batch, noise, labels, clip
        self.reals, self.adversarial_weight, self.output_mean = reals, adversarial_weight, output_mean
        self.joined = joined
        self.classes: int = getattr(self.G, "classes", 0)  # that G takes, 0 for none
        # The noise that G takes beside z, ``G(z, noise={name: ...})``: the shape for one image of each.
        self.noise_shapes: Mapping[str, Sequence[int]] = getattr(self.G, "noise_shapes", {})
        self.build_heads(heads, networks)
        self.build_penalties(penalties, networks)
        self.check_combinations()
        labels_needed = ("y",) if self.conditional or self.classes else ()
        self.needs = tuple(dict.fromkeys(["x", *labels_needed, *(key for h in self.heads for key in h.needs)]))

    def build_heads(self, heads: Sequence[Spec], networks: Mapping[str, nn.Module]) -> None:
        self.heads = nn.ModuleList(HEADS.build(h) for h in heads)  # type: ignore[assignment]  # a ModuleList of heads
        for head, spec in zip(self.heads, heads, strict=True):
            if head.network.partition(".")[0] not in networks:
                names = ", ".join(networks)
                raise ValueError(f"networks.{head.network}: the head {spec.name} needs this network, got {names}")
            head.check(self)
        # The heads that read the features of real and of fake images
        self.readers = (
            tuple(h.network for h in self.heads if h.reads_real),
            tuple(h.network for h in self.heads if h.reads_fake),
        )
        # A head learns without some labels; no other part may need them all.
        others = any("y" in h.needs for h in self.heads if not h.takes_unlabeled) or self.labels == "real"
        self.takes_unlabeled |= any(h.takes_unlabeled for h in self.heads) and not others
        self.learn_with_D = ("D", *(h.network for h in self.heads if not h.network.startswith(f"{h.D}.")))

    def build_penalties(self, penalties: Sequence[Spec], networks: Mapping[str, nn.Module]) -> None:
        parts = [PENALTIES.build(p, defaults={"networks": networks}) for p in penalties]
        self.penalties = nn.ModuleList(parts)  # type: ignore[assignment]  # a ModuleList of penalties
        for p, spec in zip(parts, penalties, strict=True):
            if p.player not in (*self.learn_with_D, "G"):
                players = " or ".join(("G", *self.learn_with_D))
                raise ValueError(f"game.penalties: {spec.name} must be a penalty of {players}, got one of '{p.player}'")
            if p.every == 1 and p.batch:
                raise ValueError(f"game.penalties: {spec.name}: batch={p.batch} must be left out with every=1")

    def check_combinations(self) -> None:
        """Raises ValueError for an option that would do nothing beside another one, or would not fit it."""
        no_effect: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
            "simultaneous": {"n_generator": (1,), "generator_batch": (None,), "noise": ("fresh",), "reals": ("last",)},
            "G-first": {"noise": ("fresh",)},
            "D-first": {},
        }
        for key, allowed in no_effect[self.order].items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"game.{key}={getattr(self, key)}: must be left at {allowed[0]} with game.order='{self.order}'"
                )
        for key in ("n_critic", "n_generator", "generator_batch"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"game.{key}={value}: must be at least 1")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"game.clip={self.clip}: must be above 0, or null for none")
        if self.noise == "shared" and self.generator_batch:
            raise ValueError(
                f"game.generator_batch={self.generator_batch}: must be left out with game.noise='shared', since G's "
                f"step has the noise of D's"
            )
        if self.reals == "fresh" and not self.reals_of_loss():
            raise ValueError("game.reals='fresh': must be 'last', since G's step reads no reals with this loss")
        if self.generator_batch and self.order == "D-first" and self.draw_for_G() == "last":
            raise ValueError(
                f"game.generator_batch={self.generator_batch}: must be left out, or game.reals='fresh', since G's step "
                f"reads the reals of D's step"
            )
        with_loss_G = [h for h in self.heads if type(h).loss_G is not Head.loss_G]
        of_G = [p for p in self.penalties if p.player == "G" and p.every == 1]
        if not self.adversarial_weight and not with_loss_G and not of_G:
            raise ValueError(
                f"game.adversarial_weight={self.adversarial_weight}: G would have no loss; give the game a penalty of "
                f"G's, such as feature-matching, or a head, or leave adversarial_weight at 1"
            )
        if self.output_mean and not hasattr(self.G, "set_output_mean"):
            raise ValueError(
                f"game.output_mean=true: {type(self.G).__name__} has no set_output_mean; leave it at false"
            )

    def turns(self) -> Sequence[Turn]:
        before = self.clip_weights if self.clip else None
        after = self.update_loss if hasattr(self.pair, "update") else None
        lazy_G, lazy_D = self.lazy_turns()
        if self.adapts:
            return self.adaptive(self.turns_of(before, after, lazy_G, lazy_D))
        return self.turns_of(before, after, lazy_G, lazy_D)

    def turns_of(self, before: Update, after: Update, lazy_G: list[Turn], lazy_D: list[Turn]) -> list[Turn]:
        """The turns in their order. ``before``: each step of D; ``after``: each of G; ``lazy_G``, ``lazy_D``: those of
        penalties that are due in some rounds."""
        if self.order == "simultaneous":
            players = (*self.learn_with_D, "G")
            return [Turn(players, self.loss_both, repeat=self.n_critic, before=before, after=after), *lazy_D, *lazy_G]
        real = self.draw_for_G()
        # Between D's steps G does not change: one pass generates their fakes, unless batch statistics or the reals'
        # classes differ.
        alone = "G" not in self.mixing and not (self.classes and self.labels == "real")
        D = Turn(
            self.learn_with_D,
            self.loss_D,
            repeat=self.n_critic,
            before=before,
            precompute=self.precompute if alone else None,
        )
        G = Turn(
            ("G",),
            self.loss_G,
            repeat=self.n_generator,
            batch=self.generator_batch,
            draw="fresh" if real and self.order == "G-first" else real,
            after=after,
        )
        if self.order == "G-first":
            return [G, *lazy_G, D, *lazy_D]
        return [D, *lazy_D, G, *lazy_G]

    # What a turn minimizes ------------------------------------------------------------------------------------------

    def loss_D(self, batch: Batch) -> Tensor:
        discriminate = Discriminate(self, batch)
        own = self.own_reals(discriminate, batch)
        fake = Inputs(self.fakes(batch).detach(), self.given(batch, "y_fake"))
        real, fake = self.score_both(discriminate, Inputs(batch["x"], self.given(batch, "y")), fake)
        return self.sum_D(self.pair.d(real.score, fake.score), discriminate, real, fake, own)

    def loss_G(self, batch: Batch) -> Tensor:
        discriminate = Discriminate(self, batch)
        fake = Inputs(self.fakes(batch, again=self.noise == "shared"), self.given(batch, "y_fake"))
        real = Inputs(batch["x"], self.given(batch, "y")) if "x" in batch else None
        if not self.adversarial_weight and not self.readers[1]:
            loss = fake.x.new_zeros(()).float()
        elif self.pair.relative:
            assert real is not None
            real, fake = self.score_both(discriminate, real, fake, fakes_first=True)
            loss = self.adversarial_weight * self.pair.g(real.score, fake.score)
        else:
            fake = fake._replace(output=discriminate(fake.x, fake.given, heads=self.readers[1]))
            loss = self.adversarial_weight * self.pair.g(None, fake.score)
            self.leave_scores(batch, fake=fake)
        return self.sum_G(loss, discriminate, real, fake)

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        discriminate = Discriminate(self, batch)
        own = self.own_reals(discriminate, batch)
        fake = Inputs(self.fakes(batch), self.given(batch, "y_fake"))
        real, fake = self.score_both(discriminate, Inputs(batch["x"], self.given(batch, "y")), fake)
        D = self.sum_D(self.pair.d(real.score, fake.score), discriminate, real, fake, own)
        G = self.adversarial_weight * self.pair.g(real.score, fake.score)
        return {**dict.fromkeys(self.learn_with_D, D), "G": self.sum_G(G, discriminate, real, fake)}

    # Their parts ----------------------------------------------------------------------------------------------------

    def score_both(
        self, discriminate: Discriminate, real: Inputs, fake: Inputs, *, fakes_first: bool = False
    ) -> tuple[Inputs, Inputs]:
        """Real and fake images with D's outputs, logged. ``fakes_first``: the order of two passes in G's step, as in
        RGAN's code; there are no penalties of D then."""
        due = [p for p in self.penalties if p.player == "D" and p.every == 1 and not fakes_first]
        gradients = tuple(dict.fromkeys(name for p in due for name in p.gradients))
        real, fake = discriminate.both(real, fake, heads=self.readers, gradients=gradients, fakes_first=fakes_first)
        discriminate.batch.log("D/real", real.score.float().mean())
        discriminate.batch.log("D/fake", fake.score.float().mean())
        self.leave_scores(discriminate.batch, real=real, fake=fake)
        return real, fake

    def leave_scores(self, batch: Batch, **images: Inputs) -> None:
        """Leave the scores to the update of a loss with memory, and of an augmentation that adapts."""
        if hasattr(self.pair, "update") or (self.adapts and "real" in images):
            batch.update({f"{kind}_score": inputs.score.detach() for kind, inputs in images.items()})

    def given(self, batch: Batch, y: str) -> dict[str, Tensor]:
        """What D gets beside images: their classes, ``batch[y]``, if it takes classes."""
        return {"y": batch[y]} if self.conditional else {}

    def own_reals(self, discriminate: Discriminate, batch: Batch) -> dict[str, DiscriminatorOutput]:
        """D's features and the head's output for the real images of heads that have their own, by head."""
        own = {h.network: h.real(batch) for h in self.heads}
        return {name: discriminate(i.x, i.given, heads=[name], score=False) for name, i in own.items() if i is not None}

    def sum_D(
        self,
        loss: Tensor,
        discriminate: Discriminate,
        real: Inputs,
        fake: Inputs,
        own: Mapping[str, DiscriminatorOutput],
    ) -> Tensor:
        """D's adversarial loss and those of its penalties and heads."""
        for player in self.learn_with_D:
            loss = self.with_penalties(player, loss, discriminate, real, fake)
        assert real.output is not None and fake.output is not None
        for head in self.heads:
            of_real = own.get(head.network, real.output)
            term = head.loss_D(of_real, fake.output, discriminate.batch, discriminate)
            loss = loss if term is None else loss + term
        return loss

    def sum_G(self, loss: Tensor, discriminate: Discriminate, real: Inputs | None, fake: Inputs) -> Tensor:
        """G's adversarial loss and those of its penalties and heads."""
        loss = self.with_penalties("G", loss, discriminate, real, fake)
        for head in self.heads:
            term = head.loss_G(fake.output or NO_OUTPUT, discriminate.batch, discriminate)
            loss = loss if term is None else loss + term
        return loss

    def with_penalties(
        self, player: str, loss: Tensor, discriminate: Discriminate, real: Inputs | None, fake: Inputs
    ) -> Tensor:
        for i, penalty in enumerate(self.penalties):
            if penalty.every == 1 and penalty.player == player:
                value = penalty(discriminate, real, fake, discriminate.batch, **self.networks_of(penalty))
                discriminate.batch.log(f"penalty/{i}", value)
                loss = loss + penalty.weight * value
        return loss

    def networks_of(self, penalty: Penalty) -> dict[str, nn.Module]:
        """The networks that a penalty gets."""
        return {name: self.get_submodule(name) for name in penalty.needs}

    def lazy_turns(self) -> tuple[list[Turn], list[Turn]]:
        """Turns of the penalties that are due in some rounds only: G's, and those of D and of what learns with it."""
        lazy = [p for p in self.penalties if p.every > 1]
        G = [Turn(("G",), self.lazy(p), every=p.every, batch=p.batch, draw=p.reals) for p in lazy if p.player == "G"]
        D = [Turn((p.player,), self.lazy(p), every=p.every, draw="last") for p in lazy if p.player != "G"]
        return G, D

    def reals_of_loss(self) -> bool:
        """Whether the loss or the classes of G's step come from reals."""
        return self.pair.relative or bool(self.classes and self.labels == "real")

    def draw_for_G(self) -> Draw:
        """Which reals G's step gets: those that a penalty of G's needs, else those of its loss; None if it needs
        none."""
        of_penalty = next((p.reals for p in self.penalties if p.player == "G" and p.every == 1 and p.reals), None)
        return of_penalty or (self.reals if self.reals_of_loss() else None)

    def lazy(self, penalty: Penalty) -> Callable[[Batch], Tensor]:
        of_G = penalty.player == "G" and self.order != "simultaneous"
        steps = penalty.every * usual(self.n_generator if of_G else self.n_critic)

        def loss(batch: Batch) -> Tensor:
            real = Inputs(batch["x"], self.given(batch, "y")) if "x" in batch else None
            if penalty.player == "G" and "G" not in penalty.needs:  # its gradient in G goes through the fakes
                self.fakes(batch)
            elif "fake" in batch:
                batch["fake"] = batch["fake"].detach()
            fake = Inputs(batch["fake"], self.given(batch, "y_fake")) if "fake" in batch else None
            value = penalty(Discriminate(self, batch), real, fake, batch, **self.networks_of(penalty))
            return penalty.weight * steps * value

        return loss

    def fakes(self, batch: Batch, again: bool = False) -> Tensor:
        """G's images [N, C, H, W] on fresh noise (or, ``again``, on the noise of the step before), left in
        ``batch["fake"]``."""
        fake: Tensor | None = batch.pop("generated", None)
        if fake is None:
            if not again or "z" not in batch or len(batch["z"]) != batch.size:
                batch.update(self.draw(batch))
            fake = self.generate(batch)
        batch["fake"] = fake
        return fake

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """G's inputs by their keys in the batch: noise, and the fakes' classes if it takes classes."""
        inputs = {"z": batch.latent(self.prior)}
        if self.classes:
            inputs["y_fake"] = batch["y"] if self.labels == "real" else batch.randint(self.classes)
        return inputs | {f"noise/{name}": batch.randn(*shape) for name, shape in self.noise_shapes.items()}

    def generate(self, inputs: Mapping[str, Any]) -> Tensor:
        """G's images [N, C, H, W] for what :meth:`draw` returned."""
        return self.G(inputs["z"], **self.beside_z(inputs))

    def beside_z(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What G takes beside z, from the same."""
        options: dict[str, Any] = {"y": inputs["y_fake"]} if self.classes else {}
        if self.noise_shapes:
            options["noise"] = {name: inputs[f"noise/{name}"] for name in self.noise_shapes}
        return options

    def precompute(self, batch: Batch, n: int) -> list[dict[str, Tensor]]:
        """Noise, classes and fakes of D's next n steps, from one pass of G."""
        steps = [self.draw(batch) for _ in range(n)]
        fakes = self.generate({key: torch.cat([step[key] for step in steps]) for key in steps[0]})
        return [{**step, "generated": fake} for step, fake in zip(steps, fakes.split(batch.size), strict=True)]

    # State ----------------------------------------------------------------------------------------------------------

    def adaptive(self, turns: list[Turn]) -> list[Turn]:
        """The turns with an augmentation that adapts: before the round's first turn, to D's scores after each of its
        steps on fresh reals."""
        augment: Any = self.augment

        def adapt(batch: Batch) -> None:
            augment.adapt()
            batch.log("augment/p", augment.p.clone())

        def record(batch: Batch) -> None:
            augment.record(batch["real_score"])

        return [
            dataclasses.replace(
                turn,
                before=in_order(adapt, turn.before) if i == 0 else turn.before,
                after=in_order(turn.after, record) if "D" in turn.players and turn.draw == "fresh" else turn.after,
            )
            for i, turn in enumerate(turns)
        ]

    def clip_weights(self, batch: Batch) -> None:
        """Clip every parameter of D, batch norm's gains too, as the authors' code does."""
        assert self.clip is not None
        for p in self.D.parameters():
            p.clamp_(-self.clip, self.clip)

    def update_loss(self, batch: Batch) -> None:
        """The update of a loss with memory."""
        for name, value in self.pair.update(batch["real_score"], batch["fake_score"]).items():
            batch.log(name, value)

    def prepare(self, batch: Batch) -> None:
        """GAN's output bias: G starts at the mean image. A D with ``initialize`` gets 500 real images."""
        set_output_mean = getattr(self.G, "set_output_mean", None)
        if self.output_mean and set_output_mean is not None:
            set_output_mean(batch["x"].mean(0))
        super().prepare(batch)
        initialize = getattr(self.D, "initialize", None)
        if initialize is not None:
            initialize(batch["x"][:500])

    def ships(self) -> dict[str, Any]:
        return add_to_model({"kind": "image", "networks": ["G"], "prior": self.prior_spec}, self.heads, self)


def in_order(*updates: Update) -> Update:
    """One update of several; None is none."""
    present = [update for update in updates if update is not None]

    def update(batch: Batch) -> None:
        for each in present:
            each(batch)

    return update if present else None
