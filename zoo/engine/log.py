"""The log of a run, and the clock that says when it is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.run_folder import CHECKPOINT, RunFolder

FOLD = 64  # values of one name that are kept apart at most; then they become part of a running sum


class Clock:
    """When the next tick, grid and checkpoint are due: often at first, then more and more rarely."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.at = {"tick": 1.0, "grid": 10.0, "save": 60.0}  # seconds since the start
        self.least = {"tick": 1.0, "grid": 5.0, "save": 60.0}  # between two of a kind
        self.most = {"tick": 60.0, "grid": 1800.0, "save": 600.0}
        self.growth = {"tick": 0.01, "grid": 0.5, "save": 0.25}  # of the time since the start

    def due(self, what: str) -> bool:
        """Whether ``tick``, ``grid`` or ``save`` is due; if so, the next one is set."""
        now = time.monotonic() - self.start
        if now < self.at[what]:
            return False
        self.at[what] = now + min(self.most[what], max(self.least[what], now * self.growth[what]))
        return True


class RunningMean:
    """The mean of one scalar since the last tick, summed in float32 on the scalar's device. ``first_bad``: the round
    and value of the first that is not finite."""

    def __init__(self) -> None:
        self.recent: list[tuple[int, Tensor]] = []
        self.sum: Tensor | None = None
        self.count = 0
        self.first_bad: Tensor | None = None  # [2], or [inf, 0] as long as all are finite

    def add(self, round: int, value: Tensor) -> None:
        self.recent.append((round, value))
        if len(self.recent) == FOLD:
            self.fold()

    def fold(self) -> None:
        """Recent values into the sum. No value is read."""
        if not self.recent:
            return
        values = torch.stack([value.float() for _, value in self.recent])
        rounds = torch.tensor([float(round) for round, _ in self.recent])
        if values.device.type == "cuda":  # from other memory the copy would wait for the device
            rounds = rounds.pin_memory()
        rounds = torch.where(values.isfinite(), float("inf"), rounds.to(values.device, non_blocking=True))
        first = rounds.argmin()
        bad = torch.stack([rounds[first.view(1)][0], values[first.view(1)][0]])
        self.first_bad = (
            bad if self.first_bad is None else torch.where(self.first_bad[0] <= bad[0], self.first_bad, bad)
        )
        self.sum = values.sum() if self.sum is None else self.sum + values.sum()
        self.count += len(self.recent)
        self.recent.clear()


class Log:
    """Running means of scalars, on the device between ticks; once a tick a line of log.jsonl and an event for ``tell``.

    ``players``: each player's parameters by name, checked for NaN. ``total``: the run's budget in images. ``images``:
    what it had consumed when this process started. ``end``: what it would consume in all if each image cost as much as
    one of this stage, by default ``total``. ``deadline``: a time of :func:`time.monotonic`.
    """

    def __init__(
        self,
        folder: RunFolder,
        players: Mapping[str, Mapping[str, nn.Parameter]],
        tell: Callable[..., None],
        *,
        total: int,
        images: int,
        end: float | None = None,
        deadline: float = math.inf,
    ):
        self.folder, self.players, self.tell = folder, players, tell
        self.total, self.deadline = total, deadline
        self.end = total if end is None else end
        self.means: dict[str, RunningMean] = {}
        self.last_time, self.last_images = time.monotonic(), images
        self.first = True

    def record(self, round: int, name: str, value: Tensor) -> None:
        """A scalar of a round; it stays on the device."""
        self.means.setdefault(name, RunningMean()).add(round, value)

    def tick(self, clock: Mapping[str, int], seconds: float, score: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write the means since the last tick. ``clock``: images, round, stage. ``seconds``: of training so far.
        ``score`` adds scores and their protocol to the line (to each: a run may continue on another machine, and its
        log be cut anywhere). Raises RuntimeError, with round, player and checkpoint, if a loss or weight is NaN or
        Inf."""
        if not self.means:
            return
        now = time.monotonic()
        try:
            means = self.read(clock)
        except RuntimeError as error:
            self.folder.log({**clock, "stopped": str(error)})
            raise
        rate = (clock["images"] - self.last_images) / max(now - self.last_time, 1e-9)
        whole = max(self.end - clock["images"], 0) / max(rate, 1e-9)  # the last batch may go beyond the budget
        self.last_time, self.last_images = now, clock["images"]
        scores = dict(score())
        if scores:
            self.last_time = time.monotonic()  # the rate is that of the training
        line = {**clock, "seconds": round(seconds, 2), "images_per_second": round(rate, 2), **scores}
        # JSON has no NaN: what a game logs beside its losses may have any value
        self.folder.log({**line, **{k: round(v, 6) if math.isfinite(v) else None for k, v in means.items()}})
        if self.first:
            self.first = False
            self.tell("rate", images_per_second=rate, seconds_left=whole)
        self.tell(
            "tick",
            images=clock["images"],
            total=self.total,
            images_per_second=rate,
            seconds_left=min(whole, max(self.deadline - now, 0.0)),
            round=clock["round"],
            stage=clock["stage"],
            logs=means,
            scores=scores.get("scores", {}),
        )

    def read(self, clock: Mapping[str, int]) -> dict[str, float]:
        """The means by name, which begin anew. Raises RuntimeError if a loss or a weight is not finite."""
        stage = f"of stage {clock['stage'] + 1}"
        last = f"the last good checkpoint is {self.folder.path / CHECKPOINT}"
        means, bad = {}, []
        for name, mean in self.means.items():
            mean.fold()
            assert mean.sum is not None and mean.first_bad is not None
            total, round, value = torch.cat([mean.sum.view(1), mean.first_bad]).tolist()
            means[name] = total / mean.count
            if name.startswith("loss/") and math.isfinite(round):
                bad.append((int(round), name, value))
        self.means.clear()
        if bad:
            round, name, value = min(bad)
            player = name.partition("/")[2]
            raise RuntimeError(f"{name} is {value} in round {round} {stage} (player {player}); {last}")
        for player, named in self.players.items():
            if not all(bool(torch.isfinite(p).all()) for p in named.values()):
                raise RuntimeError(
                    f"a weight of player {player} is not finite after round {clock['round']} {stage}; {last}"
                )
        return means
