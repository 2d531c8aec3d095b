"""The loops that ``speed.py`` measures: the engine's own, and plain loops as a script would have them, without it.

Both have the same networks and the same arithmetic: folded resampling, channels_last, fused optimizers, D frozen in
G's step; and the same choices of the machine (:class:`zoo.engine.runtime.Runtime`).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import settings
from zoo.data import ImageData
from zoo.data import facts as facts_of
from zoo.engine.log import Log
from zoo.engine.run_folder import RunFolder
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, resolve
from zoo.priors import build_prior
from zoo.recipe import SGD, Adam, Recipe
from zoo.registry import NETWORKS, Spec

Line = dict[str, Any]
CPU = Runtime(device="cpu")

# Plain loops ----------------------------------------------------------------------------------------------------------

D_LOSS = {
    "non-saturating": lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    "hinge": lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    "wasserstein": lambda real, fake: fake.mean() - real.mean(),
}
G_LOSS = {
    "non-saturating": lambda fake: F.softplus(-fake).mean(),
    "hinge": lambda fake: -fake.mean(),
    "wasserstein": lambda fake: -fake.mean(),
}


def wide(x: Tensor) -> Tensor:
    """In float32 at least: losses sum in it."""
    return x.float() if x.dtype == torch.bfloat16 else x


def square(score: Tensor, target: float) -> Tensor:
    return (wide(score) - target).square().mean()


class Loop:
    """What the plain loops share: networks on the device, optimizers, autocast, compiled losses, schedules.

    ``networks``: trained in place, all by the stage's optimizers. ``frozen``: other players require no gradients in a
    player's step. Of ``runtime`` device, precision and cuda_graphs count; the flags of torch are the caller's to set.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: dict[str, nn.Module],
        frozen: bool,
        layout: torch.memory_format,
        runtime: Runtime = CPU,
    ):
        self.stage, self.play = recipe.stages[0], recipe.stages[0].game.kwargs
        self.device, self.frozen, self.layout, self.images = torch.device(runtime.device), frozen, layout, 0
        self.networks = {n: network.to(self.device, memory_format=layout) for n, network in networks.items()}
        self.optimizers = {n: optimizer_of(self.networks[n], spec) for n, spec in self.stage.optimizers.items()}
        self.graphs, self.bf16 = runtime.cuda_graphs, runtime.precision == "bf16"
        self.losses: dict[str, Any] = {}
        self.players = ""

    def only(self, players: str) -> None:
        """The parameters of these players require gradients; of others only if the loop freezes none."""
        if players != self.players:
            for n, network in self.networks.items():
                network.requires_grad_(n in players.split() or not self.frozen)
            self.players = players

    def loss(self, name: str, *inputs: Any) -> Any:
        """The loss ``loss_NAME``, compiled if the loop replays graphs."""
        function = self.losses.get(name)
        if function is None:
            function = getattr(self, f"loss_{name}")
            if self.graphs:
                function = torch.compile(function, mode="reduce-overhead")
            self.losses[name] = function
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            return function(*inputs)

    def learn(self, players: str, name: str, *inputs: Any) -> Any:
        """One step of the players on a loss. Returns what else the loss returns."""
        self.only(players)
        loss, *others = self.loss(name, *inputs)
        for player in players.split():
            self.optimizers[player].zero_grad()
        loss.backward()
        for player in players.split():
            self.optimizers[player].step()
        return others

    def to_range(self, x: Tensor) -> Tensor:
        """uint8 images [N, C, H, W] as the networks get them."""
        x = x.float()
        low, high = self.stage.data.range
        if self.stage.data.dequantize:
            x = x.add_(torch.rand_like(x)).mul_((high - low) / 256).add_(low)
        else:
            x = x.mul_((high - low) / 255).add_(low)
        return x.contiguous(memory_format=self.layout)

    def schedule(self) -> None:
        """Learning rates and momenta of the next round."""
        for schedule in self.stage.schedules:
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    group[schedule.target.rpartition(".")[2]] = schedule.at(self.images)


class Plain(Loop):
    """G against D."""

    def __init__(
        self,
        recipe: Recipe,
        networks: dict[str, nn.Module],
        data: Tensor,
        frozen: bool,
        layout: torch.memory_format,
        runtime: Runtime = CPU,
    ):
        super().__init__(recipe, networks, frozen, layout, runtime)
        self.G, self.D = self.networks["G"], self.networks["D"]
        self.name, self.scale = self.play["loss"].name, self.play["loss"].kwargs.get("scale", 1.0)
        self.prior = build_prior(self.play.get("prior", Spec("normal")), self.G)
        self.ema_network = copy.deepcopy(self.G).eval().requires_grad_(False) if recipe.ema else None
        self.data, self.at = data.to(self.device), len(data)
        has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in self.D.modules())
        self.two_passes = has_batch_norm or self.play.get("joined") == "never"

    def reals(self, n: int) -> Tensor:
        if self.at + n > len(self.data):
            self.order, self.at = torch.randperm(len(self.data), device=self.device), 0
        x = self.data[self.order[self.at : self.at + n]]
        self.at += n
        return self.to_range(x)

    def noise(self, n: int) -> Tensor:
        return self.prior(n, None, self.device)

    def scores(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's scores of real and fake images, from one pass if D has no statistics of the batch."""
        if self.two_passes:
            return wide(self.D(x)), wide(self.D(fake))
        real, fake = wide(self.D(torch.cat([x, fake]))).chunk(2)
        return real, fake

    def slope(self, u: Tensor) -> Tensor:
        """D's gradient at images."""
        if self.graphs:  # the compiler does not follow torch.autograd.grad
            return torch.func.grad(lambda v: wide(self.D(v)).sum())(u)
        u.requires_grad_()
        (gradient,) = torch.autograd.grad(wide(self.D(u)).sum(), u, create_graph=True)
        return gradient

    def loss_D(self, x: Tensor, z: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            fake = self.G(z)
        loss = D_LOSS[self.name](*self.scores(x, fake))
        for penalty in self.play.get("penalties", ()):
            u = x + torch.rand(len(x), 1, 1, 1, device=x.device) * (fake - x)
            norm = wide(self.slope(u)).flatten(1).norm(dim=1)
            loss = loss + penalty.kwargs["weight"] * (norm - 1).square().mean()
        return (loss,)

    def loss_G(self, z: Tensor) -> tuple[Tensor]:
        return (G_LOSS[self.name](wide(self.D(self.G(z)))),)

    def loss_both(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        real, fake = self.scores(x, self.G(z))
        return self.scale * D_LOSS[self.name](real, fake), G_LOSS[self.name](fake)

    def step_D(self) -> None:
        self.z = self.noise(self.stage.batch)
        self.learn("D", "D", self.reals(self.stage.batch), self.z)

    def step_G(self) -> None:
        shared = self.play.get("noise") == "shared"
        self.learn("G", "G", self.z if shared else self.noise(self.play.get("generator_batch") or self.stage.batch))

    def step_both(self) -> None:
        """Simultaneous steps: both losses from one pass, with the same weights."""
        self.only("G D")
        x = self.reals(self.stage.batch)
        losses = dict(zip("DG", self.loss("both", x, self.noise(len(x))), strict=True))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        losses["D"].backward(inputs=list(self.D.parameters()), retain_graph=True)
        losses["G"].backward(inputs=list(self.G.parameters()))
        for optimizer in self.optimizers.values():
            optimizer.step()

    def round(self) -> int:
        """One round; the images consumed."""
        self.schedule()
        count = self.play.get("n_critic", 1)
        if self.play.get("order") == "simultaneous":
            self.step_both()
        else:
            steps = [self.step_D] * count
            for step in [self.step_G, *steps] if self.play.get("order") == "G-first" else [*steps, self.step_G]:
                step()
        self.images += count * self.stage.batch
        if self.ema_network is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema_network.parameters()), list(self.G.parameters()), 0.01)
                for mine, new in zip(self.ema_network.buffers(), self.G.buffers(), strict=True):
                    mine.copy_(new)
        return count * self.stage.batch


class PlainTranslator(Loop):
    """CycleGAN's loop: one step of both generators, then one of both discriminators on fakes from two pools."""

    def __init__(
        self,
        recipe: Recipe,
        networks: dict[str, nn.Module],
        data: ImageData,
        frozen: bool,
        layout: torch.memory_format,
        runtime: Runtime = CPU,
    ):
        super().__init__(recipe, networks, frozen, layout, runtime)
        x, domain = data.arrays["x"], data.labels("domain")
        self.data = [x[domain == i].to(self.device) for i in (0, 1)]
        self.at, self.pools = len(x), ([], [])  # the pools: of fakes of a and of b

    def reals(self, n: int) -> list[Tensor]:
        if self.at + n > min(map(len, self.data)):
            self.orders, self.at = [torch.randperm(len(x), device=self.device) for x in self.data], 0
        rows = [x[order[self.at : self.at + n]] for x, order in zip(self.data, self.orders, strict=True)]
        self.at += n
        if self.stage.data.flip:
            rows = [torch.where(torch.rand(n, 1, 1, 1, device=self.device) < 0.5, x.flip(-1), x) for x in rows]
        return [self.to_range(x) for x in rows]

    def old(self, pool: list[Tensor], fakes: Tensor) -> Tensor:
        """A fake for each of ``fakes``: itself or, half of the time once the pool is full, an earlier one."""
        output = []
        for fake in fakes.detach().clone().split(1):
            if len(pool) < self.play.get("pool", 50):
                pool.append(fake)
            elif random.random() < 0.5:
                i = random.randrange(len(pool))
                fake, pool[i] = pool[i], fake
            output.append(fake)
        return torch.cat(output)

    def loss_generators(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.networks
        fake_b, fake_a = n["G"](a), n["F"](b)
        adversarial = square(n["D_b"](fake_b), 1) + square(n["D_a"](fake_a), 1)
        cycle = (n["F"](fake_b) - a).abs().mean() + (n["G"](fake_a) - b).abs().mean()
        return adversarial + self.play.get("cycle", 10.0) * cycle, fake_a.detach(), fake_b.detach()

    def loss_discriminators(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> tuple[Tensor]:
        losses = []
        for name, real, fake in (("D_a", a, fake_a), ("D_b", b, fake_b)):
            D = self.networks[name]
            losses.append(square(D(real), 1) + square(D(fake), 0))
        return ((losses[0] + losses[1]) / 2,)

    def round(self) -> int:
        """One round; the images of one domain that it consumed."""
        self.schedule()
        a, b = self.reals(self.stage.batch)
        fakes = self.learn("G F", "generators", a, b)
        fake_a, fake_b = (self.old(pool, fake) for pool, fake in zip(self.pools, fakes, strict=True))
        self.learn("D_a D_b", "discriminators", a, b, fake_a, fake_b)
        self.images += self.stage.batch
        return self.stage.batch


def optimizer_of(network: nn.Module, spec: Any) -> torch.optim.Optimizer:
    """The optimizer of a network. Raises ValueError for another kind than Adam and SGD."""
    if isinstance(spec, Adam):
        return torch.optim.Adam(
            network.parameters(), spec.lr, spec.betas, spec.eps, weight_decay=spec.weight_decay, fused=True
        )
    if isinstance(spec, SGD):
        return torch.optim.SGD(network.parameters(), spec.lr, spec.momentum, spec.dampening, fused=True)
    raise ValueError(f"optimizer must be Adam or SGD, got {spec}")


# The engine -----------------------------------------------------------------------------------------------------------


def setting(name: str, batch: int | None = None, width: int | None = None) -> Recipe:
    """A recipe of the registry, with another batch or width if they are not None."""
    recipe = settings.find(name)
    networks = dict(recipe.networks)
    if width:
        networks = {n: s.replace(width=width) for n, s in networks.items()}
    stage = recipe.stages[0]
    # Random images at the stage's own resolution: nothing to load larger and crop, nothing to pad.
    stage = dataclasses.replace(
        stage, batch=batch or stage.batch, data=dataclasses.replace(stage.data, load=None, pad=False)
    )
    return recipe.replace(networks=networks, stages=(stage,))


def pictures(recipe: Recipe, n: int = 1024) -> Tensor:
    """Random uint8 images of the recipe's shape: the time does not depend on what they show."""
    channels = facts_of(recipe.dataset).channels
    side = recipe.stages[0].resolution
    return torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()


class Engine:
    """The engine's own rounds, with its log."""

    def __init__(self, recipe: Recipe, data: Tensor | ImageData, runtime: Runtime = CPU):
        facts = facts_of(data)
        recipe = resolve(recipe, facts)
        self.run = StageRun(recipe, 0, data, facts, runtime, runtime.prepare_device(), 0)
        self.run.prepare()
        players = self.run.learner.players
        self.log = Log(RunFolder("unused"), players, lambda event, **facts: None, total=recipe.images, images=0)

    def round(self) -> int:
        """One round; the images consumed."""
        return self.run.play_round(self.log.record)

    def networks(self) -> dict[str, nn.Module]:
        return {n: copy.deepcopy(self.run.game.get_submodule(n)).requires_grad_(True) for n in self.run.networks}


def setting_of(recipe: Recipe, model: str) -> Line:
    """The keys of a line: the recipe, its batch size, and the first width of each network."""
    widths = []
    for spec in recipe.networks.values():
        arguments = NETWORKS.parameters(spec.name)
        key = next(k for k in ("width", "widths", "hidden", "units") if k in arguments)
        value = spec.kwargs.get(key, arguments[key].default)
        widths.append(value if isinstance(value, int) else value[0])
    return {"recipe": model, "batch": recipe.stages[0].batch, "width": "/".join(map(str, dict.fromkeys(widths)))}
