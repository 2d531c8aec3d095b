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

from zoo.game import Batch, Draw, Game, Turn, mixes_batch
from zoo.penalties import Penalty
from zoo.priors import build_prior
from zoo.registry import GAMES, LOSSES, PENALTIES, Spec

Times = int | Callable[[int], int]


@GAMES.register("adversarial")
class Adversarial(Game):
    """G(z[, y]) against D(x[, y]).

    Args:
        networks: G and D.
        loss: Spec in LOSSES.
        penalties: Specs in PENALTIES; one with ``every`` > 1 gets a turn of its own, its weight multiplied by ``every``
            (lazy regularization), the others join the loss of their player.
        prior: Spec in PRIORS.
        order: ``"D-first"``, ``"G-first"`` or ``"simultaneous"`` (both from one forward on the same noise and old
            weights).
        n_critic, n_generator: D's and G's steps a round, numbers or ``Rounds``.
        generator_batch: samples in G's step if the paper has its own number (WGAN-GP, SNGAN: 128 beside D's 64).
        noise: ``"fresh"`` in each step, or ``"shared"``: G's step uses the noise of the last D step (LSGAN's code).
        reals: in G's step, if its loss or classes come from reals, those of D's ``"last"`` step or ``"fresh"`` ones.
        labels: the classes of fakes: ``"uniform"``, or those of the ``"real"`` images.
        joined: D gets reals and fakes in one pass if that changes no score (``"auto"``), or in two (``"never"``): for a
            D with spectral normalization, which makes a power iteration in each pass.
        clip: before each D step every weight of D is clipped to [-clip, clip] (WGAN).
        adversarial_weight: factor on G's adversarial loss; at 0 G learns from penalties alone (feature matching).
        output_mean: before the first round G is set to start at the mean image (``G.set_output_mean``; GAN).

    Batch keys: reads ``x`` and, if G or D takes classes, ``y``; writes ``z``, ``y_fake``, ``fake``.
    """

    takes: tuple[str, ...] = ("G", "D")
    penalties: Sequence[Penalty]

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("non-saturating"),
        penalties: Sequence[Spec] = (),
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
        output_mean: bool = False,
    ):
        super().__init__(networks)
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
        parts = [PENALTIES.build(p, defaults={"networks": networks}) for p in penalties]
        self.penalties = nn.ModuleList(parts)  # type: ignore[assignment]  # a ModuleList of penalties
        for p, spec in zip(parts, penalties, strict=True):
            if p.player not in ("G", "D"):
                raise ValueError(f"game.penalties: {spec.name} must be a penalty of G or D, got one of '{p.player}'")
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)
        self.order, self.n_critic, self.n_generator = order, n_critic, n_generator
        self.generator_batch, self.noise, self.labels, self.clip = generator_batch, noise, labels, clip
        self.reals, self.adversarial_weight, self.output_mean = reals, adversarial_weight, output_mean
        if not adversarial_weight and not any(p.player == "G" and p.every == 1 for p in self.penalties):
            raise ValueError(
                f"game.adversarial_weight={adversarial_weight}: G would have no loss; give the game a penalty of G's, "
                f"such as feature-matching, or leave adversarial_weight at 1"
            )
        if output_mean and not hasattr(self.G, "set_output_mean"):
            raise ValueError(
                f"game.output_mean=true: {type(self.G).__name__} has no set_output_mean; leave it at false"
            )
        self.joined = joined == "auto" and not mixes_batch(self.D)
        self.needs = ("x", "y") if self.conditional or self.classes else ("x",)

    @property
    def classes(self) -> int:
        """Number of classes that G takes, 0 if it takes none."""
        return getattr(self.G, "classes", 0)

    def turns(self) -> Sequence[Turn]:
        before = self.clip_weights if self.clip else None
        lazy = self.lazy_turns()
        if self.order == "simultaneous":
            return [Turn(("D", "G"), self.loss_both, repeat=self.n_critic, before=before), *lazy]
        real: Draw = self.reals if self.pair.relative or (self.classes and self.labels == "real") else None
        real = self.reals_for_G() or real
        # Between D's steps G does not change: one pass generates their fakes, unless batch statistics or the reals'
        # classes differ.
        alone = not mixes_batch(self.G) and not (self.classes and self.labels == "real")
        D = Turn(
            ("D",), self.loss_D, repeat=self.n_critic, before=before, precompute=self.precompute if alone else None
        )
        G = Turn(
            ("G",),
            self.loss_G,
            repeat=self.n_generator,
            batch=self.generator_batch,
            draw="fresh" if real and self.order == "G-first" else real,
        )
        return [G, D, *lazy] if self.order == "G-first" else [D, G, *lazy]

    # What a turn minimizes ------------------------------------------------------------------------------------------

    def loss_D(self, batch: Batch) -> Tensor:
        real, fake = self.scores(batch["x"], self.fakes(batch).detach(), batch)
        return self.with_penalties("D", self.pair.d(real, fake), batch)

    def loss_G(self, batch: Batch) -> Tensor:
        fake = self.fakes(batch, again=self.noise == "shared")
        if not self.adversarial_weight:
            loss = fake.new_zeros(()).float()
        elif self.pair.relative:
            loss = self.adversarial_weight * self.pair.g(*self.scores(batch["x"], fake, batch, fakes_first=True))
        else:
            loss = self.adversarial_weight * self.pair.g(None, self.score_fake(fake, batch))
        return self.with_penalties("G", loss, batch)

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        real, fake = self.scores(batch["x"], self.fakes(batch), batch)
        losses = {"D": self.pair.d(real, fake), "G": self.adversarial_weight * self.pair.g(real, fake)}
        return {player: self.with_penalties(player, loss, batch) for player, loss in losses.items()}

    # Their parts ----------------------------------------------------------------------------------------------------

    def fakes(self, batch: Batch, again: bool = False) -> Tensor:
        """G's images [N, C, H, W] on fresh noise (or, ``again``, on the noise of the step before), left in
        ``batch["fake"]``."""
        fake: Tensor | None = batch.pop("generated", None)
        if fake is None:
            if not again or "z" not in batch or len(batch["z"]) != batch.size:
                self.draw(batch)
            fake = self.G(batch["z"], y=batch["y_fake"]) if self.classes else self.G(batch["z"])
        batch["fake"] = fake
        return fake

    def draw(self, batch: Batch) -> None:
        """G's inputs: noise, and the fakes' classes if it takes classes."""
        batch["z"] = batch.latent(self.prior)
        if self.classes:
            batch["y_fake"] = batch["y"] if self.labels == "real" else batch.randint(self.classes)

    def precompute(self, batch: Batch, n: int) -> list[dict[str, Tensor]]:
        """Noise, classes and fakes of D's next n steps, from one pass of G."""
        steps = []
        for _ in range(n):
            self.draw(batch)
            steps.append({k: batch[k] for k in ("z", "y_fake") if k in batch})
        whole = {k: torch.cat([step[k] for step in steps]) for k in steps[0]}
        fakes = self.G(whole["z"], y=whole["y_fake"]) if self.classes else self.G(whole["z"])
        return [{**step, "generated": fake} for step, fake in zip(steps, fakes.split(batch.size), strict=True)]

    def scores(self, x: Tensor, fake: Tensor, batch: Batch, *, fakes_first: bool = False) -> tuple[Tensor, Tensor]:
        """D's scores of real and fake images, [N] each, from one pass, or from two if D mixes the batch or ``joined``
        is "never". ``fakes_first``: the order of two passes, as in G's step of RGAN's code."""
        if not self.joined and fakes_first:
            on_fake, on_real = self.score_fake(fake, batch), self.score(x, batch)
        elif not self.joined:
            on_real, on_fake = self.score(x, batch), self.score_fake(fake, batch)
        else:
            y = {"y": torch.cat([batch["y"], batch["y_fake"]])} if self.conditional else {}
            on_real, on_fake = self.D(torch.cat([x, fake]), **y).split([len(x), len(fake)])
        batch.log("D/real", on_real.float().mean())
        batch.log("D/fake", on_fake.float().mean())
        return on_real, on_fake

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        return self.D(fake, y=batch["y_fake"]) if self.conditional else self.D(fake)

    def with_penalties(self, player: str, loss: Tensor, batch: Batch) -> Tensor:
        for i, penalty in enumerate(self.penalties):
            if penalty.every == 1 and penalty.player == player:
                value = penalty(self, batch)
                batch.log(f"penalty/{i}", value)
                loss = loss + penalty.weight * value
        return loss

    def lazy_turns(self) -> list[Turn]:
        """Turns of the penalties that are due in some rounds only."""
        return [Turn((p.player,), self.lazy(p), every=p.every, draw="last") for p in self.penalties if p.every > 1]

    def reals_for_G(self) -> Draw:
        """Which reals a penalty of G's needs, if any does."""
        return next((p.reals for p in self.penalties if p.player == "G" and p.reals), None)

    def lazy(self, penalty: Penalty) -> Callable[[Batch], Tensor]:
        return lambda batch: penalty.weight * penalty.every * penalty(self, batch)

    # State ----------------------------------------------------------------------------------------------------------

    def clip_weights(self, batch: Batch) -> None:
        """Clip every parameter of D, batch norm's gains too, as the authors' code does."""
        assert self.clip is not None
        for p in self.D.parameters():
            p.clamp_(-self.clip, self.clip)

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
        return {"kind": "image", "networks": ["G"], "prior": self.prior_spec}


def with_head(turns: Sequence[Turn], head: str) -> list[Turn]:
    """The turns, with a head on D's features that learns when D does, except in a penalty's own turn, which does not
    use it."""

    def players(turn: Turn) -> tuple[str, ...]:
        return tuple(q for p in turn.players for q in ((p, head) if p == "D" else (p,)))

    return [dataclasses.replace(turn, players=players(turn)) if turn.every == 1 else turn for turn in turns]


def check_head(game: Adversarial) -> None:
    """Raises ValueError if G would learn from penalties alone: a head's loss of the fakes comes with D's score of
    them."""
    if not game.adversarial_weight:
        raise ValueError(
            f"game.adversarial_weight={game.adversarial_weight}: must not be 0 in a game with a head; leave it at 1"
        )
