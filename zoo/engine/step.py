"""The only place that learns: one turn of a game, from its loss to its players' steps."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo import parallel
from zoo.game import Batch, Game, Turn
from zoo.recipe import SGD, Adam, RMSProp, Stage
from zoo.registry import nearest


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


class Learner:
    """A game's turns, players and optimizers for the length of a stage."""

    def __init__(
        self,
        game: Game,
        stage: Stage,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        fused: bool = True,
    ):
        self.game, self.turns = game, list(game.turns())
        self.players = players(game, self.turns, stage)
        freeze_idle(game, self.players)
        device = str(device)
        self.optimizers = {
            player: make_optimizer(stage.optimizers[player], list(named.values()), device, fused)
            for player, named in self.players.items()
        }
        self._fused = {p: bool(o.defaults.get("fused")) for p, o in self.optimizers.items()}
        self._all = list(game.parameters())
        self._learning: tuple[str, ...] | None = None
        self._compiled = compile
        # A simultaneous turn goes back twice through one compiled graph, which must then keep its buffers.
        if compile:
            torch._functorch.config.donated_buffer = False
        self._losses = {id(t): torch.compile(t.loss) if compile else t.loss for t in self.turns}
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
        with self._cast():
            value = self._losses[id(turn)](batch)
        losses, gates = self._backward(turn, value)
        for player in turn.players:
            parallel.mean_gradients(self.players[player].values())
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
        with self._cast():
            return turn.precompute(batch, n)

    def _backward(self, turn: Turn, value: Tensor | Mapping) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if isinstance(value, Tensor):
            value.backward()
            return {"+".join(turn.players): value}, {}
        losses = {k: v[0] if isinstance(v, tuple) else v for k, v in value.items()}
        gates = {k: v[1] for k, v in value.items() if isinstance(v, tuple)}
        assert set(losses) == set(turn.players), f"losses for {set(losses)}, players {set(turn.players)}"
        last = next(reversed(losses))
        for player, loss in losses.items():
            mine = [p for p in self.players[player].values() if p.requires_grad]
            loss.backward(inputs=mine, retain_graph=player != last)
        return losses, gates

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


def _tensors(optimizer: Optimizer, p: nn.Parameter) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor)]
