"""The discriminator call: the only place that calls a discriminator.

A discriminator D has two parts: ``D.features(x, given)`` and ``D.score(features, given)``, with the conditions by name
in ``given`` (``{"y": classes}``), to which the call adds the images themselves as ``"x"`` for a score that needs them
(an autoencoder's). Between the two heads read the features. A network without these parts is called as
``D(x, **given)``; it has no features, and can have no heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zoo.game import Batch, Game
    from zoo.heads import Head

Given = Mapping[str, Tensor]
Augment = Callable[[Sequence[Tensor], "Batch"], Sequence[Tensor]]


class DiscriminatorOutput(NamedTuple):
    """``scores``: raw scores by name, high for real images; one score is called ``"score"``. ``features``: those that
    they were computed from, [N, ...]. ``heads``: outputs of the heads that were asked for, by the heads' names."""

    scores: dict[str, Tensor]
    features: Tensor | None
    heads: dict[str, Tensor]

    @property
    def score(self) -> Tensor:
        """The only score. Raises ValueError if there are several."""
        if len(self.scores) != 1:
            raise ValueError(f"discriminator: must have one score for this loss, got {', '.join(self.scores)}")
        return next(iter(self.scores.values()))

    def split(self, sizes: list[int]) -> list[DiscriminatorOutput]:
        """The outputs of the first ``sizes[0]`` samples, of the next ``sizes[1]``, ..."""
        scores = {name: s.split(sizes) for name, s in self.scores.items()}
        heads = {name: h.split(sizes) for name, h in self.heads.items()}
        features = [None] * len(sizes) if self.features is None else self.features.split(sizes)
        return [
            DiscriminatorOutput({n: s[i] for n, s in scores.items()}, h, {n: o[i] for n, o in heads.items()})
            for i, h in enumerate(features)
        ]


class Inputs(NamedTuple):
    """What a discriminator gets: images x [N, C, H, W] (or points [N, C]) and their conditions by name; once it has
    been called also its ``output`` and, if that was asked for, the ``gradient`` of the sum of its scores with respect
    to x, [N, ...] in float32, with a graph."""

    x: Tensor
    given: Given | None = None
    output: DiscriminatorOutput | None = None
    gradient: Tensor | None = None

    @property
    def score(self) -> Tensor:
        """The output's only score."""
        assert self.output is not None
        return self.output.score


class Discriminate:
    """``discriminate(x, given)`` for the discriminators of a game, during one loss of ``batch``.

    A call logs nothing and writes no buffer of the game; the layers' own buffers are updated by passes in
    training mode as usual, the running averages of batch norm not inside :func:`keep_running_averages`. With
    ``game.augment(images, batch)`` images are augmented on their way to D, with numbers drawn from the batch; it gets x
    and the conditions that are images of the same size, to which one draw applies.
    """

    def __init__(self, game: Game, batch: Batch):
        self.game, self.batch = game, batch
        self.heads: Sequence[Head] = getattr(game, "heads", ())
        self.augment: Augment | None = getattr(game, "augment", None)

    def __call__(
        self, x: Tensor, given: Given | None = None, *, D: str = "D", heads: Sequence[str] = (), score: bool = True
    ) -> DiscriminatorOutput:
        """The output of the discriminator ``D`` for images x [N, C, H, W].

        Args:
            x: images, or points [N, C].
            given: conditions by name; they may have a gradient.
            D: path of the discriminator in the game (``"D"``, ``"D.levels.2"``).
            heads: names of the heads to read.
            score: False: only features and heads.
        """
        return self._read(self._pass(*self._augment(x, given), D, score), given, D, heads)

    def features(self, x: Tensor, given: Given | None = None, *, D: str = "D", layer: str = "features") -> Tensor:
        """D's features of images alone, [N, ...]. ``layer``: another method of D with the same arguments. Raises
        ValueError if D does not have it."""
        network = self.game.get_submodule(D)
        compute = getattr(network, layer, None)
        if compute is None:
            raise ValueError(f"networks.{D}: must have {layer}, got {type(network).__name__}")
        result: Tensor = compute(*self._augment(x, given))
        return result

    def both(
        self,
        real: Inputs,
        fake: Inputs,
        *,
        D: str = "D",
        heads: tuple[Sequence[str], Sequence[str]] = ((), ()),
        gradients: Sequence[str] = (),
        fakes_first: bool = False,
    ) -> tuple[Inputs, Inputs]:
        """D's outputs for real and fake images, from one pass or from two (``game.joined``): in one unless a layer
        mixes the samples of a batch, or only one side needs a gradient.

        Args:
            real, fake: with the same conditions.
            D: path of the discriminator.
            heads: names of the heads to read, of the real and of the fake images.
            gradients: ``"real"`` and ``"fake"``: whose gradient with respect to x is computed too, with the same pass
                (``torch.func.vjp``), if D has no running averages to update.
            fakes_first: the order of two passes.
        """
        if gradients and updates_averages(self.game.get_submodule(D)):
            gradients = ()
        if self.joins(D) and len(gradients) != 1:
            return self._joined(real, fake, D, heads, bool(gradients))
        if fakes_first:
            fake = self._alone(fake, D, heads[1], "fake" in gradients)
            return self._alone(real, D, heads[0], "real" in gradients), fake
        real = self._alone(real, D, heads[0], "real" in gradients)
        return real, self._alone(fake, D, heads[1], "fake" in gradients)

    def joins(self, D: str) -> bool:
        """Whether real and fake images share a pass of ``D``."""
        return self.game.joined == "always" or (self.game.joined == "auto" and D not in self.game.mixing)

    def modules(self) -> Iterator[nn.Module]:
        """All layers of the game's networks."""
        return self.game.modules()

    # Passes ---------------------------------------------------------------------------------------------------------

    def _alone(self, inputs: Inputs, D: str, heads: Sequence[str], gradient: bool) -> Inputs:
        """One pass for the images of one kind."""

        def compute(x: Tensor) -> DiscriminatorOutput:
            return self._pass(*self._augment(x, inputs.given), D)

        if not gradient:
            return inputs._replace(output=self._read(compute(inputs.x), inputs.given, D, heads))
        output, (slope,) = with_gradients(compute, inputs.x)
        return inputs._replace(output=self._read(output, inputs.given, D, heads), gradient=slope)

    def _joined(
        self, real: Inputs, fake: Inputs, D: str, heads: tuple[Sequence[str], Sequence[str]], gradients: bool
    ) -> tuple[Inputs, Inputs]:
        """One pass for both kinds. Heads read the features of their kind only."""

        def compute(real_x: Tensor, fake_x: Tensor) -> DiscriminatorOutput:
            of_real, of_fake = self._augment(real_x, real.given), self._augment(fake_x, fake.given)
            given = {name: torch.cat([value, of_fake[1][name]]) for name, value in of_real[1].items()}
            return self._pass(torch.cat([of_real[0], of_fake[0]]), given, D)

        slopes: Sequence[Tensor | None] = (None, None)
        if gradients:
            output, slopes = with_gradients(compute, real.x, fake.x)
        else:
            output = compute(real.x, fake.x)
        first, second = output.split([len(real.x), len(fake.x)])
        of_real = self._read(first, real.given, D, heads[0])
        of_fake = self._read(second, fake.given, D, heads[1])
        return real._replace(output=of_real, gradient=slopes[0]), fake._replace(output=of_fake, gradient=slopes[1])

    def _pass(self, x: Tensor, given: Given | None, D: str, score: bool = True) -> DiscriminatorOutput:
        """Features and, if asked for, scores and the outputs of heads that change the score's conditions."""
        network = getattr(self.game, D) if "." not in D else self.game.get_submodule(D)

        def read(features: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
            outputs = {}
            for head in self.heads:
                if head.D == D and head.changes_given:
                    outputs[head.network] = head.read(self.game, features, conditions)
                    conditions.update(head.given(outputs[head.network], conditions))
            return outputs

        return call(network, x, given, read, score)

    def _read(
        self, output: DiscriminatorOutput, given: Given | None, D: str, heads: Sequence[str]
    ) -> DiscriminatorOutput:
        """The output with those of ``heads``."""
        outputs = dict(output.heads)
        for head in self.heads:
            if head.D == D and head.network in heads and head.network not in outputs:
                if output.features is None:
                    raise ValueError(f"networks.{D}: must have features for the head {head.network}")
                outputs[head.network] = head.read(self.game, output.features, given or {})
        return output._replace(heads=outputs) if heads else output

    def _augment(self, x: Tensor, given: Given | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Images and conditions, augmented: image conditions of the size of x with the same draw."""
        conditions = dict(given or {})
        if self.augment is None:
            return x, conditions
        names = [n for n, c in conditions.items() if c.dim() == x.dim() > 2 and c.shape[2:] == x.shape[2:]]
        x, *others = self.augment([x, *(conditions[n] for n in names)], self.batch)
        return x, {**conditions, **dict(zip(names, others, strict=True))}


def named(scores: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores by name; a tensor is the only one."""
    return {"score": scores} if isinstance(scores, Tensor) else dict(scores)


def with_gradients(
    compute: Callable[..., DiscriminatorOutput], *images: Tensor
) -> tuple[DiscriminatorOutput, list[Tensor]]:
    """The output, and the gradients of the sum of its scores with respect to each of ``images``: one forward pass."""

    def total(*images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        output = compute(*images)
        features = {} if output.features is None else {"features": output.features}  # torch.func takes no None
        return total_score(output), {"scores": output.scores, "heads": output.heads, **features}

    value, pullback, parts = torch.func.vjp(total, *images, has_aux=True)  # type: ignore[misc]  # three with aux
    output = DiscriminatorOutput(parts["scores"], parts.get("features"), parts["heads"])
    return output, [slope.float() for slope in pullback(torch.ones_like(value))]


def total_score(output: DiscriminatorOutput) -> Tensor:
    """The sum of all scores, a scalar in float32."""
    return torch.stack([s.float().sum() for s in output.scores.values()]).sum()


def call(
    network: Any,
    x: Tensor,
    given: Given | None = None,
    read: Callable[[Tensor, dict[str, Tensor]], dict[str, Tensor]] | None = None,
    score: bool = True,
) -> DiscriminatorOutput:
    """The output of a discriminator. ``read(features, conditions)``: the outputs of heads, which may change the
    conditions of the score. ``score``: False: only features."""
    conditions = dict(given or {})
    if not hasattr(network, "score"):
        return DiscriminatorOutput(named(network(x, **conditions)), None, {})
    conditions["x"] = x
    features = network.features(x, conditions)
    if not score:
        return DiscriminatorOutput({}, features, {})
    outputs = {} if read is None else read(features, conditions)
    return DiscriminatorOutput(named(network.score(features, conditions)), features, outputs)


# Layers' own buffers --------------------------------------------------------------------------------------------------


def updates_averages(network: nn.Module) -> bool:
    """Whether a pass updates running averages, which torch.func's transforms refuse."""
    return any(True for _ in averaging(network.modules()))


def averaging(layers: Iterable[nn.Module]) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """The batch norms that update their running averages."""
    for m in layers:
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats:
            yield m


@contextlib.contextmanager
def keep_running_averages(network: nn.Module | Discriminate) -> Iterator[None]:
    """Inside, batch norms in training mode do not update their running averages. (Spectral normalization updates its u
    in every pass, as in the authors' code.)"""
    norms = list(averaging(network.modules()))
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
