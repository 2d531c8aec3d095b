"""The only place that learns: one turn of a game, from its loss to its players' steps."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo import parallel
from zoo.game import Batch, Game, Loss, Sampler, Turn, interleave, whole_batch_parts
from zoo.recipe import SGD, Adam, RMSProp, Stage
from zoo.registry import nearest

RECOMPILE_LIMIT = 64  # graphs of one loss, of all stages


def players(game: Game, turns: list[Turn], stage: Stage) -> dict[str, dict[str, nn.Parameter]]:
    """Each player's parameters by name. Raises ValueError unless every player has one optimizer and no parameter
    two."""
    parameters: dict[str, dict[str, nn.Parameter]] = {}
    owner: dict[int, str] = {}
    for player in dict.fromkeys(p for turn in turns for p in turn.players):
        if player not in stage.optimizers:
            raise ValueError(f"optimizers: player '{player}' must have one{nearest(player, stage.optimizers)}")
        try:
            module = game.get_submodule(player)
        except AttributeError:
            names = [n for n, _ in game.named_children()]
            raise ValueError(f"player '{player}' must be a submodule of the game{nearest(player, names)}") from None
        parameters[player] = dict(module.named_parameters())
        for name, p in parameters[player].items():
            if owner.setdefault(id(p), player) != player:
                raise ValueError(f"optimizers: '{owner[id(p)]}' and '{player}' would both learn {player}.{name}")
    for player in stage.optimizers:
        if player not in parameters:
            raise ValueError(f"optimizers.{player}: no turn names this player{nearest(player, parameters)}")
    return parameters


def freeze_idle(game: Game, named: Mapping[str, Any]) -> None:
    """Training mode for the players in ``named``. Other networks, and the other parts of a network of which only some
    parts are players, are frozen, in eval mode."""
    game.train()
    _freeze(game, "", named)


def _freeze(module: nn.Module, path: str, named: Mapping[str, Any]) -> None:
    for name, child in module.named_children():
        here = path + name
        if here in named:
            continue
        if any(player.startswith(here + ".") for player in named):
            _freeze(child, here + ".", named)
        elif any(True for _ in child.parameters()):
            child.eval().requires_grad_(False)


def make_optimizer(spec: Adam | SGD | RMSProp, parameters: list[nn.Parameter], device: str, fused: bool) -> Optimizer:
    """The torch optimizer of a recipe's field; fused if the device has it."""
    fused = fused and torch.device(device).type in ("cpu", "cuda", "mps")
    if isinstance(spec, Adam):
        betas, decay = (float(spec.betas[0]), float(spec.betas[1])), spec.weight_decay
        return torch.optim.Adam(parameters, lr=spec.lr, betas=betas, eps=spec.eps, weight_decay=decay, fused=fused)
    if isinstance(spec, SGD):
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, dampening=spec.dampening, fused=fused)
    return torch.optim.RMSprop(parameters, lr=spec.lr, alpha=spec.alpha, eps=spec.eps, weight_decay=spec.weight_decay)


def check_slices(game: Game, turns: Sequence[Turn], stage: Stage, micro_batch: int | None) -> None:
    """Raises ValueError if a turn's batch cannot be split as ``stage.accumulate`` and ``micro_batch`` say, or if a part
    of the game needs the whole batch."""
    world = parallel.world()
    for turn in turns:
        size = (turn.batch or stage.batch) // world
        if size % stage.accumulate:
            raise ValueError(f"accumulate={stage.accumulate}: must divide the batch of a process, {size}")
        size //= stage.accumulate
        if micro_batch is None or size <= micro_batch:
            k = 1
        elif size % micro_batch:
            raise ValueError(f"--micro-batch {micro_batch}: must divide the batch of a process, {size}")
        else:
            k = size // micro_batch
            for part in whole_batch_parts(game):
                raise ValueError(f"--micro-batch {micro_batch}: {part} needs the whole batch")
        for name, stream in stage.data.streams.items():
            if turn.draw is not None and stream.batch and stream.batch // world % (k * stage.accumulate):
                parts = f"the {k * stage.accumulate} parts of a batch"
                raise ValueError(f"data.streams.{name}.batch={stream.batch}: must be a multiple of {parts}")


class Learner:
    """A game's turns, players and optimizers for the length of a stage.

    ``micro_batch``: at most so many samples of this process at a time. Their gradients add up to the whole batch's: a
    slice gets its share of the whole batch's noise, and begins with the buffers that the whole batch would. With
    ``stage.accumulate`` the slices are batches of their own: buffers go from one to the next.
    """

    def __init__(
        self,
        game: Game,
        stage: Stage,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        cuda_graphs: bool = False,
        fused: bool = True,
        micro_batch: int | None = None,
    ):
        self.game, self.turns = game, list(game.turns())
        self.players = players(game, self.turns, stage)
        freeze_idle(game, self.players)
        check_slices(game, self.turns, stage, micro_batch)
        self.accumulate, self.micro_batch = stage.accumulate, micro_batch
        self.specs = dict(stage.optimizers)
        device = str(device)
        self.optimizers = {
            player: make_optimizer(stage.optimizers[player], list(named.values()), device, fused)
            for player, named in self.players.items()
        }
        self._fused = {p: bool(o.defaults.get("fused")) for p, o in self.optimizers.items()}
        self._all = list(game.parameters())
        self._learning: tuple[str, ...] | None = None
        self._compiled, self._graphs = compile or cuda_graphs, cuda_graphs
        # A simultaneous turn goes back twice through one compiled graph, which must then keep its buffers.
        if self._compiled:
            torch._functorch.config.donated_buffer = False
            # A loss is compiled anew for each level of networks that grow. Past torch's limit of 8 it would run in
            # eager mode.
            dynamo = torch._dynamo.config
            dynamo.recompile_limit = max(dynamo.recompile_limit, RECOMPILE_LIMIT)
        # The mode that replays CUDA graphs is also called so on other devices, which ignore it.
        mode = "reduce-overhead" if cuda_graphs else None
        self._losses = {id(t): torch.compile(t.loss, mode=mode) for t in self.turns} if self._compiled else {}
        self._samplers: dict[
            tuple[int, int, tuple[str, ...]], list[Sampler]
        ] = {}  # by turn, size and keys of the batch
        self._cast = (
            (lambda: torch.autocast(torch.device(device).type, dtype=torch.bfloat16))
            if precision == "bf16"
            else contextlib.nullcontext
        )

    def _only(self, names: tuple[str, ...]) -> None:
        """Only the learning players require gradients: no graph is built for the others."""
        if names == self._learning:
            return
        for p in self._all:
            p.requires_grad_(False)
        for name in names:
            for p in self.players[name].values():
                p.requires_grad_(True)
        self._learning = names

    def play(self, turn: Turn, batch: Batch, round: int) -> dict[str, Tensor]:
        """One step of the turn's players. Returns each player's loss, detached, still on the device."""
        self._only(tuple(turn.players))
        for player in turn.players:
            self.optimizers[player].zero_grad(set_to_none=True)
        if turn.before is not None:
            with torch.no_grad():
                turn.before(batch)
        losses, gates = self._gradients(turn, batch)
        for player in turn.players:
            parallel.mean_gradients(self.players[player].values())
            self._limit(player)
            self._step(player, gates.get(player))
        if turn.after is not None:
            with torch.no_grad():
                turn.after(batch)
        # A replayed CUDA graph writes its outputs into the same memory again.
        return {k: v.detach().clone() if self._compiled else v.detach() for k, v in losses.items()}

    @torch.no_grad()
    def precompute(self, turn: Turn, batch: Batch, n: int) -> Sequence[Mapping[str, Any]]:
        """What the next n steps of the turn get in their batches; nothing if n is 1 or the turn precomputes nothing."""
        if turn.precompute is None or n == 1:
            return [{}] * n
        computed = []
        for part in self._parts(batch):
            with self._cast():
                computed.append(turn.precompute(part, n))
        if len(computed) == 1:
            return computed[0]
        for k in (len(computed) // self.accumulate, self.accumulate):  # micro-batches, then the parts that they are of
            groups = [computed[i : i + k] for i in range(0, len(computed), k)]
            computed = [[_joined(step) for step in zip(*group, strict=True)] for group in groups]
        return computed[0]

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """The batch, or what is computed at a time of it."""
        for own in batch.slices(self.accumulate):
            k = 1 if self.micro_batch is None else max(1, own.size // self.micro_batch)
            if k == 1:
                yield own
                continue
            # A pass writes buffers that do not depend on the samples (spectral norm's u): each slice begins with the
            # same ones, and the last one's stay.
            buffers = list(self.game.buffers())
            before = [b.clone() for b in buffers]
            for i, part in enumerate(own.slices(k)):
                if i:
                    with torch.no_grad():
                        for buffer, value in zip(buffers, before, strict=True):
                            buffer.copy_(value)
                yield part

    def _gradients(self, turn: Turn, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Leave the gradients of the turn's loss in its players' parameters. Returns losses and gates by player."""
        parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        count = 0  # of the samples so far
        for part in self._parts(batch):
            if self._graphs:
                known, logs = dict(part), dict(part.logs)
            with self._cast():
                value = self._compiled_loss(turn, part) if self._compiled else turn.loss(part)
            parts.append(self._backward(turn, value, part.size / batch.size))
            count += part.size
            if self._graphs:
                _copy_new(part, known)
                _copy_new(part.logs, logs)
                if count < batch.size:
                    self._copy_gradients(turn)
        assert count == batch.size, f"{count} of {batch.size} samples"
        if len(parts) == 1:
            return parts[0]
        if len(parts) > self.accumulate and parts[0][1]:
            gate = " and ".join(parts[0][1])
            raise ValueError(f"--micro-batch {self.micro_batch}: the gate of {gate} needs the whole batch")
        losses, gates = zip(*parts, strict=True)
        return _means(losses), _means(gates)

    def _compiled_loss(self, turn: Turn, batch: Batch) -> Loss:
        """The turn's loss, compiled; noise is drawn before it. The first one with such a batch is computed in eager
        mode and records what it draws."""
        # A twin with the keys in one order and without logs: another order or length would be compiled again.
        twin = copy.copy(batch)
        twin.clear()
        twin.update({key: batch[key] for key in sorted(batch)})
        twin.logs = {}
        key = (id(turn), batch.size, tuple(twin))
        if key not in self._samplers:
            twin.recorded = self._samplers[key] = []
            value = turn.loss(twin)
        else:
            with torch.no_grad():
                twin.queue = [batch.draw(sampler) for sampler in self._samplers[key]]
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            value = self._losses[id(turn)](twin)
            assert not twin.queue, "a loss must draw the same each time"
        batch.clear()
        batch.update(twin)
        batch.logs.update(twin.logs)
        return value

    def _backward(self, turn: Turn, value: Loss, share: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of ``share`` times the losses to the players' parameters."""
        if isinstance(value, Tensor):
            (value if share == 1 else share * value).backward()
            return {"+".join(turn.players): value}, {}
        losses = {k: v[0] if isinstance(v, tuple) else v for k, v in value.items()}
        gates = {k: v[1] for k, v in value.items() if isinstance(v, tuple)}
        assert set(losses) == set(turn.players), f"losses for {set(losses)}, players {set(turn.players)}"
        last = next(reversed(losses))
        for player, loss in losses.items():
            mine = [p for p in self.players[player].values() if p.requires_grad]
            (loss if share == 1 else share * loss).backward(inputs=mine, retain_graph=player != last)
        return losses, gates

    def _copy_gradients(self, turn: Turn) -> None:
        """Gradients into memory of their own: the next slice's graph would overwrite them."""
        for player in turn.players:
            for p in self.players[player].values():
                p.grad = None if p.grad is None else p.grad.clone()

    @torch.no_grad()
    def _limit(self, player: str) -> None:
        """What the recipe does to a player's gradient between backward and step. Nothing is read from the device."""
        spec = self.specs[player]
        if spec.nan_to_num is None and spec.clip is None:
            return
        gradients = [p.grad for p in self.players[player].values() if p.grad is not None]
        if spec.nan_to_num is not None:
            for g in gradients:
                torch.nan_to_num(g, nan=0.0, posinf=spec.nan_to_num, neginf=-spec.nan_to_num, out=g)
        if spec.clip is not None:
            nn.utils.clip_grad_norm_(list(self.players[player].values()), spec.clip)

    @torch.no_grad()
    def _step(self, player: str, gate: Tensor | None) -> None:
        optimizer = self.optimizers[player]
        if gate is None:
            optimizer.step()
            return
        # The processes must agree on it: most of them decide.
        named = list(self.players[player].values())
        go = parallel.mean(gate.detach().float().reshape(())) > 0.5
        if self._fused[player]:
            for p in named:  # torch's fused SGD leaves a new moment undefined if its first step is skipped
                if optimizer.defaults.get("momentum") and "momentum_buffer" not in optimizer.state[p]:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
            # The kernels skip the step, on the device, if found_inf is 1.
            optimizer.found_inf = 1.0 - go.float()  # type: ignore[attr-defined]  # the kernels look for it
            optimizer.step()
            delattr(optimizer, "found_inf")
        else:
            before = [(p, p.clone(), {k: v.clone() for k, v in _tensors(optimizer, p)}) for p in named]
            optimizer.step()
            for p, old, state in before:
                p.copy_(torch.where(go, p, old))
                for k, v in _tensors(optimizer, p):
                    if v.device == p.device:  # RMSProp counts its steps on the CPU and does not use the count
                        v.copy_(torch.where(go, v, state.get(k, torch.zeros_like(v))))


def _copy_new(values: dict[str, Any], known: Mapping[str, Any]) -> None:
    """Tensors that a loss left, into memory of their own: the next replay of a CUDA graph would overwrite them."""
    for key, value in values.items():
        if isinstance(value, Tensor) and value is not known.get(key):
            values[key] = value.detach().clone()


def _joined(parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What was computed for a batch from what was for its slices."""
    return {key: interleave([part[key] for part in parts]) for key in parts[0]}


def _means(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([v[key].detach() for v in values]).mean(0) for key in values[0]}


def _tensors(optimizer: Optimizer, p: nn.Parameter) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor)]
