"""What a run is made of: the machine's choices (Runtime), the folder, the log, the sample grids, the exported weights."""

from __future__ import annotations

import copy
import json
import os
import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import hub, parallel
from zoo.data import Facts
from zoo.engine.ema import EmaNetworks
from zoo.engine.stage import shipped
from zoo.files import beside, remove_partials
from zoo.game import Batch, Game
from zoo.model import KINDS, Model, build_model
from zoo.recipe import Recipe, encode
from zoo.version import __version__

RECIPE, LOG, CHECKPOINT, WEIGHTS, SAMPLES = (
    "recipe.json",
    "log.jsonl",
    "checkpoint.safetensors",
    "weights.safetensors",
    "samples",
)


@dataclass(frozen=True)
class Runtime:
    """All that the machine fixes. Beyond rounding no result depends on it.

    ``device``: ``auto`` (cuda, else mps, else cpu) or a torch device. ``precision``: ``fp32`` or ``bf16`` (autocast; penalties
    and losses sum in float32). ``tf32``: let matrix units round float32 inputs to 10 bits. ``compile``: torch.compile the
    losses. ``deterministic``: bit-equal repetition on CUDA too. ``layout``: ``channels_last`` or ``contiguous``
    (on MPS always contiguous: gradients of pooling are wrong there in the other, pytorch issue 175190).
    ``eval_every``: score the model each time so many real images have been consumed, which leaves the training as it is.
    """

    device: str = "auto"
    precision: str = "fp32"
    tf32: bool = True
    compile: bool = False
    deterministic: bool = False
    layout: str = "channels_last"
    eval_every: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision='{self.precision}': must be fp32 or bf16")
        if self.layout not in ("channels_last", "contiguous"):
            raise ValueError(f"layout='{self.layout}': must be channels_last or contiguous")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"eval_every={self.eval_every}: must be at least 1 image")

    def settle(self) -> torch.device:
        """Choose the device and tell torch the rest. ValueError where the device is not there."""
        name = self.device
        if name == "auto":
            mps = torch.backends.mps.is_available()
            name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise ValueError(f"device='{name}': must be auto, cpu, cuda, cuda:N or mps") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device='{name}': torch finds no CUDA device here; use --device cpu")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError(f"device='{name}': torch finds no MPS device here; use --device cpu")
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", parallel.local_rank())
            torch.cuda.set_device(device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
            torch.backends.cudnn.benchmark = not self.deterministic
            if self.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
        return device


class RunFolder:
    """The folder of a run: recipe.json, log.jsonl, samples/*.png, checkpoint.safetensors, weights.safetensors."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe, runtime: Runtime, **facts: Any) -> RunFolder:
        """A new folder. ``facts``: what else a resumed run has to know (seed, init, given). ValueError as in
        :meth:`check_new`; nothing is left behind where it can't be written."""
        run = cls(path)
        run.check_new()
        held = {"zoo": __version__, **facts, "runtime": asdict(runtime), "recipe": encode(recipe)}
        run.path.mkdir(parents=True, exist_ok=True)
        remove_partials(run.path)
        try:
            run._write_text(RECIPE, json.dumps(held, indent=2))
        except OSError:
            (run.path / RECIPE).unlink(missing_ok=True)
            run.path.rmdir()
            raise
        return run

    def check_new(self) -> None:
        """ValueError where a folder stands there already that holds more than a killed writer's leavings."""
        if self.path.exists() and (not self.path.is_dir() or any(p.suffix != ".partial" for p in self.path.iterdir())):
            raise ValueError(
                f"out='{self.path}': exists already; name another folder with --out, "
                f"or go on with zoo resume {self.path}"
            )

    def _write_text(self, name: str, text: str) -> None:
        with beside(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def facts(self) -> dict[str, Any]:
        """What recipe.json holds. ValueError where the folder is no run's."""
        try:
            return json.loads((self.path / RECIPE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            raise ValueError(f"run '{self.path}': no readable {RECIPE} there; is it the folder of a run?") from None

    def runtime(self, **changes: Any) -> Runtime:
        """What the run was begun with, but for the ``changes`` that are not None."""
        return Runtime(**{**self.facts()["runtime"], **{k: v for k, v in changes.items() if v is not None}})

    def log(self, line: Mapping[str, Any]) -> None:
        """One line of log.jsonl, written at once."""
        with open(self.path / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def cut_log(self, images: int) -> None:
        """Drop what was logged after the checkpoint from which a run goes on (and a torn last line)."""
        if not (self.path / LOG).exists():
            return
        kept = []
        for line in (self.path / LOG).read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["images"] <= images:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue
        self._write_text(LOG, "".join(kept))

    def record_machine(self, machine: Mapping[str, Any], images: int) -> None:
        """Say in recipe.json on which machine the run goes on from ``images`` real images, where it is another one."""
        held = self.facts()
        machines = held.get("machines", [])
        if not machines or {k: v for k, v in machines[-1].items() if k != "from_images"} != machine:
            held["machines"] = [*machines, {"from_images": images, **machine}]
            self._write_text(RECIPE, json.dumps(held, indent=2))


def versions() -> dict[str, str]:
    """Of what computes the numbers."""
    return {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()}


def processor() -> str:
    """The processor in words."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        named = [line.partition(":")[2].strip() for line in known.read_text().splitlines() if "model name" in line]
        if named:
            return named[0]
    return platform.processor() or platform.machine()


def machine_of(device: torch.device) -> dict[str, Any]:
    """The machine that a run is made on, in words; nothing that names its owner."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": parallel.world(),
        "versions": versions(),
    }


def model_of(game: Game, ema_networks: EmaNetworks, spec: Mapping[str, Any]) -> Model:
    """The Model that the game would leave behind now: the shadows where there are any, the players elsewhere."""
    networks = {n: ema_networks[n].network if n in ema_networks else game.get_submodule(n) for n in spec["networks"]}
    return build_model(spec, networks)


def uses(spec: Mapping[str, Any], path: str | Path) -> list[str]:
    """The commands that put the weights of a model spec to use, by the model's verb: a translator has one a direction."""
    where, verb = shlex.quote(str(path)), KINDS[spec["kind"]].verb
    if verb == "translate":
        to = [shlex.quote(str(spec.get("domains", {}).get(d, d))) for d in spec["to"]]
        return [f"zoo sample {where} --input image.png --to {d} --out translated.png" for d in to]
    return [f"zoo eval {where}" if verb == "classify" else f"zoo sample {where} -n 16 --out grid.png"]


def finished(game: Game, ema_networks: EmaNetworks, spec: Mapping[str, Any], draw: Callable[[], Batch]) -> Model:
    """The Model as it is shipped. A game with standing statistics finishes a copy, so that training is not touched; one
    process does it alone."""
    if type(game).finish is not Game.finish:
        game = copy.deepcopy(game)
        for name, ema_network in ema_networks.items():
            game.get_submodule(name).load_state_dict(ema_network.network.state_dict())
        with torch.no_grad(), parallel.alone():
            game.finish(draw)
        ema_networks = {}
    return model_of(game, ema_networks, spec)


def tile(images: Tensor, columns: int) -> Tensor:
    """[N, C, H, W] -> [3, rows * (H + 2) + 2, columns * (W + 2) + 2], two white pixels around each image. As torchvision's
    ``make_grid``, whose import alone takes two seconds."""
    images = images.clamp(0, 1)
    n, _, height, width = images.shape
    columns = min(columns, n)
    grid = images.new_ones(3, -(-n // columns) * (height + 2) + 2, columns * (width + 2) + 2)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 2) + 2, i % columns * (width + 2) + 2
        grid[:, top : top + height, left : left + width] = image
    return grid


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """Images [N, C, H, W] in [0, 1], or points [N, D], as one PNG."""
    from PIL import Image, ImageDraw

    if images.dim() == 2:  # points: a scatter plot (one dimension: a histogram) over [-4, 4]
        canvas = Image.new("RGB", (256, 256), "white")
        draw = ImageDraw.Draw(canvas)
        at = ((images.clamp(-4, 4) + 4) / 8 * 255).tolist()
        if images.shape[1] == 1:
            counts = torch.histc(images, 128, -4, 4)
            for i, h in enumerate((counts / counts.max().clamp(min=1) * 250).tolist()):
                draw.rectangle((2 * i, 255 - h, 2 * i + 1, 255), fill="black")
        else:
            for u, v, *_ in at:
                draw.point((u, 255 - v), fill="black")
    else:
        canvas = Image.fromarray((tile(images, columns) * 255 + 0.5).byte().permute(1, 2, 0).numpy())

    with beside(path) as partial:
        canvas.save(partial, format="PNG")


def card(recipe: Recipe, facts: Facts, spec: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights file says of itself. ``run``: images, seconds, seed."""
    return {
        "name": recipe.name,
        "model": dict(spec),
        "recipe": encode(recipe),
        "dataset": {"name": facts.name, "license": facts.license},
        **run,
        "metrics": {},
        "versions": versions(),
    }


def export(
    path: Path,
    game: Game,
    ema_networks: EmaNetworks,
    recipe: Recipe,
    stage_index: int,
    facts: Facts,
    draw: Callable[[], Batch],
    run: Mapping[str, Any],
) -> None:
    """Write the weights file."""
    spec = shipped(game, recipe, recipe.stages[stage_index], facts)
    model = finished(game, ema_networks, spec, draw)
    networks = {n: model.networks[n] for n in spec["networks"]}
    said = {**run, "checkpoint": "last"}  # a run never chooses one by its score
    hub.save_weights(path, networks, card(recipe, facts, spec, said))
