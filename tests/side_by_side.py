"""Plays a base commit and the work tree side by side and says in which bits they differ.

    python tests/side_by_side.py BASE                # every recipe of the suite: equal bits?
    python tests/side_by_side.py BASE --gradients    # gradients of each turn from the same state: equal to 1e-5?
    python tests/side_by_side.py BASE --weights      # the shipped files: the same tensors, the same samples?

Each side runs in processes of its own, on one thread, with its own tree on ``sys.path``; the base is unpacked into a
temporary folder. Both train every recipe for three rounds of every stage from one seed, with the small networks of the
suite.
What is compared, recipe by recipe:

- *initial*: all weights and buffers before the first round;
- *losses*: the value of every loss of every turn;
- *weights*, *optimizers*, *EMA*: the checkpoint after each round.

With ``--gradients`` the base also writes the state of the game, the batch and the generators before each turn. The work
tree goes on from these, so that no difference of one turn reaches the next, and numbers are compared to rounding: the
largest difference in a network's gradient must be at most 1e-5 of the largest value of that gradient, and so for each
buffer. (Adam turns the rounding of a gradient of zero into a whole step, so weights say little when sums have changed
their order.) EMA and the optimizers' own arithmetic are not compared then.

With ``--same-rows`` the work tree is given the rows of real data that the base has drawn: for a commit that changes
their order.

Exit status: 0 if nothing differs, 1 if something does.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import hashlib
import importlib
import importlib.util
import io
import json
import os
import queue
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
TOLERANCE = 1e-5

# What the base calls a thing -> what the work tree calls it. Renamed tensors, batch keys and recipes go here.
RECIPE_NAMES: dict[str, str] = {}
# Regular expression -> replacement, tried on names in checkpoints and games.
TENSOR_NAMES: list[tuple[str, str]] = [(r"^optim\.", "optimizers."), (r"^k$", "pair.k"), (r"^game\.k$", "game.pair.k")]
BATCH_KEYS: list[tuple[str, str]] = [
    (r"^ahead$", "generated"),
    (r"^labell", "label"),
    (r"_energy$", "_score"),
]  # expressions
NEGATIVE = r"_energy$"  # batch keys whose values have the other sign
PLAYER_NAMES: dict[str, str] = {}

# The one place that knows where things are in a tree: the first that exists serves.
PLACES = {
    "names": ["zoo.settings:names", "zoo.recipe:names"],
    "train": ["zoo.engine.train:train"],
    "Runtime": ["zoo.engine.runtime:Runtime", "zoo.engine.run:Runtime"],
    "describe": ["zoo.engine.dry_run:describe", "zoo.engine.plan:describe"],
    "facts": ["zoo.data:facts"],
    "Loader": ["zoo.data:Loader"],
    "Game": ["zoo.game:Game"],
    "load": ["zoo:load"],
}
HELPERS = ("small", "stand_in")  # of the suite: a recipe with small networks, and real images for it


def place(name: str) -> Any:
    """A thing of this process's tree by its entry in ``PLACES``."""
    for entry in PLACES[name]:
        module, _, attribute = entry.partition(":")
        spec = importlib.util.find_spec(module)
        if spec is None or not Path(spec.origin or "/").is_relative_to(sys.path[0]):
            continue  # not there, or found in another tree by an editable installation
        if hasattr(importlib.import_module(module), attribute):
            return getattr(importlib.import_module(module), attribute)
    raise ImportError(f"no {name}: none of {', '.join(PLACES[name])} exists; add its new place to PLACES")


def helpers(tree: Path) -> list[Any]:
    """``small`` and ``stand_in`` from the file of the tree's tests that defines them."""
    module = "helpers.recipes" if (tree / "tests" / "helpers" / "recipes.py").exists() else "test_recipes"
    return [getattr(importlib.import_module(module), name) for name in HELPERS]


# One side -------------------------------------------------------------------------------------------------------------


def digest(tensor: Any) -> str:
    """A hash of dtype, shape and bytes."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    text = f"{plain.dtype} {tuple(plain.shape)}".encode()
    return hashlib.sha256(text + plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def renamed(name: str) -> str:
    for pattern, replacement in TENSOR_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


class Recorder:
    """What one side does with one recipe. It stands between the engine and every game: ``Game.turns`` hands out turns
    whose losses pass through :meth:`turn`, and torch calls :meth:`step` before every optimizer's step.

    ``folder``: the base writes the states and rows of turns there, and the work tree reads them. ``task``: ``"bits"``,
    ``"rows"`` (also hand over the rows of real data) or ``"gradients"`` (also hand over all that a turn begins with).
    """

    def __init__(self, folder: Path, base: bool, task: str):
        self.folder, self.base, self.task = folder, base, task
        self.games: list[Any] = []  # one a stage, in the order of their first turn
        self.turn_counts: list[int] = []
        self.lists: list[Any] = []  # the turns of each stage, as a dry run asks for them
        self.losses: list[list[str]] = []
        self.checkpoints: list[dict[str, str]] = []
        self.real_keys: set[str] = set()
        self.pending: dict[str, Any] = {}
        self.steps = 0
        self.theirs: dict[str, Any] = {}
        self.worst: dict[str, list[Any]] = {k: [0.0, ""] for k in ("initial", "gradients", "buffers")}
        self.unmatched: set[str] = set()

    # How it gets between

    def attach(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        Game, Loader, recorder = place("Game"), place("Loader"), self
        start, next_rows = Game.__init__, Loader.next

        def init(game: Any, *args: Any, **kwargs: Any) -> None:
            start(game, *args, **kwargs)
            game.__dict__["turns"] = lambda: recorder.turns(game)
            game.__dict__["prepare"] = lambda batch: recorder.prepare(game, batch)

        def rows(loader: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            batch = next_rows(loader, *args, **kwargs)
            recorder.real_keys.update(batch)
            return batch

        Game.__init__, Loader.next = init, rows
        self.handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: recorder.step(optimizer))
        self.undo = lambda: (setattr(Game, "__init__", start), setattr(Loader, "next", next_rows), self.handle.remove())

    def turns(self, game: Any) -> list[Any]:
        turns = list(type(game).turns(game))
        self.lists.append(turns)
        for i, t in enumerate(turns):
            turns[i] = dataclasses.replace(t, loss=lambda batch, t=t: self.turn(game, t, batch))
            if hasattr(t, "before"):
                turns[i] = dataclasses.replace(turns[i], before=lambda batch, t=t: self.begin(game, t, batch))
        return turns

    # What it does there

    def prepare(self, game: Any, batch: Any) -> None:
        if batch.device.type != "meta" and self.task == "rows":
            self.exchange_rows(f"prepare-{len(self.games):03d}", batch)
        type(game).prepare(game, batch)

    def begin(self, game: Any, turn: Any, batch: Any) -> None:
        if batch.device.type != "meta":
            self.exchange(game, batch)
        if turn.before is not None:
            turn.before(batch)

    def exchange(self, game: Any, batch: Any) -> None:
        if not self.games or self.games[-1] is not game:
            self.finish()
            self.games.append(game)
            self.turn_counts.append(0)
        name = f"turn-{len(self.games):03d}-{self.turn_counts[-1]:04d}"
        self.turn_counts[-1] += 1
        if self.task == "rows":
            self.exchange_rows(name, batch)
        if self.task == "gradients":
            self.exchange_state(name, game, batch)

    def turn(self, game: Any, turn: Any, batch: Any) -> Any:
        if batch.device.type == "meta":
            return turn.loss(batch)
        if not hasattr(turn, "before"):
            self.exchange(game, batch)
        value = turn.loss(batch)
        parts = value if isinstance(value, dict) else {"+".join(turn.players): value}
        scalars = {k: v[0] if isinstance(v, tuple) else v for k, v in parts.items()}
        stage = str(len(self.games))
        self.losses.append([stage, *(f"{k}={v.detach().double().item().hex()}" for k, v in scalars.items())])
        return value

    def exchange_rows(self, name: str, batch: Any) -> None:
        """The base writes its real data; the work tree takes them in place of its own."""
        import torch

        if self.base:
            self.write(name, {f"batch/{k}": batch[k] for k in self.real_keys if isinstance(batch.get(k), torch.Tensor)})
            return
        for key, value in self.read(name).items():
            self.put(batch, key.removeprefix("batch/"), value)

    def put(self, batch: Any, key: str, value: Any) -> None:
        if key not in batch:
            value = -value if re.search(NEGATIVE, key) else value
            for pattern, replacement in BATCH_KEYS:
                key = re.sub(pattern, replacement, key)
        if key not in batch:
            self.unmatched.add(f"batch['{key}']")
        batch[key] = value

    def exchange_state(self, name: str, game: Any, batch: Any) -> None:
        """The base writes what the turn begins with; the work tree goes on from it. Its own buffers are compared first,
        and before the very first turn its weights too."""
        import torch

        own = game.state_dict()
        if self.base:
            self.finish()
            tensors = {f"game/{k}": v for k, v in own.items()}
            tensors |= {f"batch/{k}": v for k, v in batch.items() if isinstance(v, torch.Tensor)}
            tensors |= {"noise": batch.generator.get_state(), "layers": torch.get_rng_state()}
            self.pending = {"name": name, "tensors": {k: v.detach().clone() for k, v in tensors.items()}}
            self.steps = 0
            return
        self.theirs, self.steps = self.read(name), 0
        what = "buffers" if self.losses else "initial"
        checked = {k for k, _ in game.named_buffers()} if self.losses else {*own}
        with torch.no_grad():
            for key, value in self.theirs.items():
                kind, _, rest = key.partition("/")
                if kind == "batch":
                    self.put(batch, rest, value)
                elif kind == "game":
                    rest = rest if rest in own else renamed(rest)
                    if rest not in own or own[rest].shape != value.shape:
                        self.unmatched.add(rest)
                        continue
                    if rest in checked:
                        self.compare(what, f"{name} {rest}", own[rest], value, value.double().abs().max().item())
                    own[rest].copy_(value)
        batch.generator.set_state(self.theirs["noise"])
        torch.set_rng_state(self.theirs["layers"])

    def step(self, optimizer: Any) -> None:
        """An optimizer is about to take a step with the gradients that its parameters have now."""
        if self.task != "gradients" or not self.games:
            return
        known = {id(p): n for n, p in self.games[-1].named_parameters()}
        named = {known.get(id(p)): p for group in optimizer.param_groups for p in group["params"]}
        if None in named:  # of a dry run, on meta
            return
        gradients = {n: p.grad.detach() for n, p in named.items() if p.grad is not None}
        if self.base:
            tensors = {f"grad/{self.steps}/{n}": g.clone() for n, g in gradients.items()}
            self.pending["tensors"].update(tensors)
        else:
            prefix = f"grad/{self.steps}/"
            theirs = {k.removeprefix(prefix): v for k, v in self.theirs.items() if k.startswith(prefix)}
            theirs = {k if k in named else renamed(k): v for k, v in theirs.items()}
            self.unmatched.update(f"the gradient of {n}" for n in theirs.keys() ^ gradients.keys())
            largest = max((v.abs().max().item() for v in theirs.values()), default=0.0)
            label = f"turn {self.turn_counts[-1]} of stage {len(self.games)}"
            for n in theirs.keys() & gradients.keys():
                self.compare("gradients", f"{label} {n}", gradients[n], theirs[n], largest)
        self.steps += 1

    def compare(self, what: str, where: str, own: Any, theirs: Any, scale: float) -> None:
        difference = (own.double() - theirs.double()).abs().max().item() if own.numel() else 0.0
        share = difference / scale if scale else float("inf") if difference else 0.0
        if not share <= self.worst[what][0]:  # a NaN is the worst
            self.worst[what] = [share, where]

    def finish(self) -> None:
        """Write the turn that is over."""
        if self.pending:
            self.write(self.pending["name"], self.pending["tensors"])
            self.pending = {}

    def write(self, name: str, tensors: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, self.folder / f"{name}.safetensors")

    def read(self, name: str) -> dict[str, Any]:
        from safetensors.torch import load_file

        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            raise RuntimeError(f"the base has no {name}: it plays fewer turns")
        return load_file(path)

    def progress(self, event: str, **facts: Any) -> None:
        """What the engine reports: at each checkpoint its tensors are hashed."""
        if event != "checkpoint":
            return
        from safetensors.torch import load_file

        path = Path(facts["path"])
        self.checkpoints.append({renamed(k) if self.base else k: digest(v) for k, v in load_file(path).items()})


def budgets(recipe: Any, facts: Any, recorder: Recorder) -> Any:
    """The recipe with so many images a stage that each plays ``ROUNDS`` rounds; its schedules shrink with it."""
    recorder.lists.clear()
    place("describe")(recipe, facts)
    stages = []
    for stage, turns in zip(recipe.stages, recorder.lists[-len(recipe.stages) :], strict=True):
        own = next(iter(stage.data.streams.values())).batch
        images = 1
        for r in range(ROUNDS - 1):
            fresh = False
            for turn in turns:
                times = turn.times(r)
                draws = times if turn.draw == "fresh" else int(bool(times) and turn.draw == "last" and not fresh)
                fresh = fresh or draws > 0
                images += draws * (own or turn.batch or stage.batch)
        stages.append(recipe.replace(stages=(stage,)).rescaled(images).stages[0])
    return recipe.replace(stages=tuple(stages))


def play(name: str, folder: Path, base: bool, task: str, small: Any, stand_in: Any) -> dict[str, Any]:
    """Train a recipe for ``ROUNDS`` rounds of every stage. Returns what there is to compare."""
    recipe = small(name)
    source = stand_in(recipe)
    recorder = Recorder(folder, base, task)
    recorder.attach()
    try:
        recipe = budgets(recipe, source.facts, recorder)
        runtime = place("Runtime")(device="cpu", layout="contiguous")
        with tempfile.TemporaryDirectory() as out:
            place("train")(
                recipe, Path(out) / "run", runtime=runtime, seed=0, dataset=source, progress=recorder.progress
            )
        recorder.finish()
    finally:
        recorder.undo()
    # Each stage begins with a checkpoint and ends with one that repeats that of its last round.
    wanted = len(recipe.stages) * (ROUNDS + 2)
    if len(recorder.checkpoints) != wanted:
        raise RuntimeError(
            f"{len(recorder.checkpoints)} checkpoints, expected {wanted}: are there {ROUNDS} rounds a stage?"
        )
    return {
        "stages": len(recipe.stages),
        "turns": len(recorder.losses),
        "losses": recorder.losses,
        "checkpoints": recorder.checkpoints,
        "worst": recorder.worst,
        "unmatched": sorted(recorder.unmatched),
    }


def weights_of(tree: Path) -> dict[str, list[str]]:
    """For each shipped file a hash of all its tensors (names, dtypes, shapes, bytes) and one of 16 of its images."""
    import torch
    from safetensors.torch import load_file

    differences = {}
    for path in sorted((tree / "zoo" / "weights").glob("*.safetensors")):
        tensors = {k: digest(v) for k, v in sorted(load_file(path).items())}
        model = place("load")(str(path))
        if model.verb == "sample":
            images = model.sample(16, seed=0)
        else:
            side = model.card["recipe"]["stages"][-1]["resolution"]
            x = torch.rand(16, 3, side, side, generator=torch.Generator().manual_seed(0))
            images = torch.cat([model.translate(x, to) for to in model.card["model"]["to"]])
        differences[path.stem] = [hashlib.sha256(json.dumps(tensors).encode()).hexdigest()[:16], digest(images)]
    return differences


def serve(tree: Path, base: bool, task: str) -> None:
    """One side's process: reads commands, one a line of JSON, and answers each with a line."""
    sys.path[:1] = [str(tree), str(tree / "tests")]
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr
    hours = iter(range(10**9))
    real = time.monotonic
    time.monotonic = lambda: real() + 3600.0 * next(hours)  # the engine's clock: a checkpoint is due after every round

    import torch

    import zoo

    assert Path(zoo.__file__).is_relative_to(tree), f"{zoo.__file__} is not in {tree}"
    torch.set_num_threads(1)
    small, stand_in = helpers(tree)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            if command == "names":
                answer = place("names")()
            elif command == "weights":
                answer = weights_of(tree)
            else:
                answer = play(arguments[0], Path(arguments[1]), base, task, small, stand_in)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


# Both -----------------------------------------------------------------------------------------------------------------


class Side:
    """A process of one side and the questions put to it."""

    def __init__(self, tree: Path, home: Path, base: bool, task: str):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ZOO_HOME": str(home)}
        environment["PYTHONPATH"] = str(tree)
        command = [sys.executable, __file__, "--serve", str(tree), "base" if base else "work", task]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
        )

    def ask(self, *command: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": "its process ended"}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def unpack(commit: str, folder: Path) -> Path:
    """The files of a commit in a new folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


KINDS = {"weights": "game.", "optimizers": "optim", "EMA": "ema."}


def different_names(a: dict[str, str], b: dict[str, str], prefix: str = "") -> list[str]:
    """The names under a prefix whose hashes differ, or that one side alone has."""
    keys = sorted(k for k in {*a, *b} if k.startswith(prefix))
    return [k for k in keys if a.get(k) != b.get(k)]


def first(names: list[str]) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"


def compare_bits(base: dict[str, Any], work: dict[str, Any]) -> dict[str, str]:
    """What differs in the bits, by column; an empty text if nothing does."""
    differences = dict.fromkeys(("initial", "losses", *KINDS), "")
    names = different_names(base["checkpoints"][0], work["checkpoints"][0])
    differences["initial"] = first(names) if names else ""
    theirs = [[s, *(rename_player(p) for p in parts)] for s, *parts in base["losses"]]
    if len(theirs) != len(work["losses"]):
        differences["losses"] = f"{len(theirs)} turns, now {len(work['losses'])}"
    else:
        bad = [i for i, (a, b) in enumerate(zip(theirs, work["losses"], strict=True)) if a != b]
        if bad:
            parts = [" ".join(losses[bad[0]][1:]) for losses in (theirs, work["losses"])]
            differences["losses"] = f"{len(bad)} of {len(theirs)}, first turn {bad[0] + 1}: {parts[0]}, now {parts[1]}"
    if len(base["checkpoints"]) != len(work["checkpoints"]):
        differences["weights"] = f"{base['stages']} stages, now {work['stages']}"
        return differences
    for column, prefix in KINDS.items():
        for i, (a, b) in enumerate(zip(base["checkpoints"], work["checkpoints"], strict=True)):
            names = different_names(a, b, prefix)
            if names:
                stage, r = divmod(i, ROUNDS + 2)
                differences[column] = f"stage {stage + 1}, after round {r}: {first(names)}"
                break
    return differences


def rename_player(part: str) -> str:
    """``D+G=0x1.8p+0`` with the players' new names."""
    players, _, value = part.rpartition("=")
    return "+".join(PLAYER_NAMES.get(p, p) for p in players.split("+")) + "=" + value


def compare_gradients(base: dict[str, Any], work: dict[str, Any]) -> dict[str, str]:
    differences = {}
    for column, (share, where) in work["worst"].items():
        differences[column] = "" if share <= TOLERANCE else f"{share:.1e} at {where}"
    differences["names"] = f"no counterpart of {first(work['unmatched'])}" if work["unmatched"] else ""
    differences["turns"] = "" if base["turns"] == work["turns"] else f"{base['turns']}, now {work['turns']}"
    return differences


class Report:
    """Prints a line a recipe, and what differs in it; safe to use from several threads."""

    def __init__(self) -> None:
        self.lock, self.count, self.different = threading.Lock(), 0, []

    def add(self, name: str, about: str, differences: dict[str, str]) -> None:
        with self.lock:
            self.count += 1
            columns = "  ".join(f"{k} {'DIFFERS' if v else 'equal'}" for k, v in differences.items())
            print(f"{name:38} {about:22} {columns}", flush=True)
            for key, text in differences.items():
                if text:
                    print(f"    {key}: {text}", flush=True)
            if any(differences.values()):
                self.different.append(name)


def play_both(names: queue.Queue, sides: list[Side], folder: Path, task: str, report: Report) -> None:
    while True:
        try:
            name = names.get_nowait()
        except queue.Empty:
            break
        with tempfile.TemporaryDirectory(dir=folder) as exchange:
            base = sides[0].ask("play", name, exchange)
            work = sides[1].ask("play", RECIPE_NAMES.get(name, name), exchange)
        errors = {f"error ({side})": a["error"] for side, a in (("base", base), ("work tree", work)) if "error" in a}
        if errors:
            report.add(name, "", errors)
            continue
        differences = compare_gradients(base, work) if task == "gradients" else compare_bits(base, work)
        about = f"{base['stages']} stage{'s' * (base['stages'] > 1)}, {base['turns']} turns"
        if task == "gradients":
            about += f", {work['worst']['gradients'][0]:.0e}"
        report.add(name, about, differences)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", help="a git commit")
    parser.add_argument("--recipes", default="*", metavar="PATTERN", help="shell pattern of recipe names")
    parser.add_argument("--gradients", action="store_true", help="compare each turn's gradients from the same state")
    parser.add_argument("--same-rows", action="store_true", help="give both sides the rows that the base draws")
    parser.add_argument("--weights", action="store_true", help="compare the shipped files instead")
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time")
    options = parser.parse_args()
    task = "gradients" if options.gradients else "rows" if options.same_rows else "bits"
    report, started = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trees = [unpack(options.base, folder / "base"), ROOT]

        def pair() -> list[Side]:
            return [Side(t, folder / f"home-{i}", i == 0, task) for i, t in enumerate(trees)]

        pairs = [pair()]
        if options.weights:
            base, work = (side.ask("weights") for side in pairs[0])
            for name in sorted({*base, *work}):
                a, b = base.get(name, ["none"] * 2), work.get(name, ["none"] * 2)
                texts = ("" if x == y else f"{x}, now {y}" for x, y in zip(a, b, strict=True))
                report.add(name, "", dict(zip(("tensors", "images"), texts, strict=True)))
        else:
            base, work = (side.ask("names") for side in pairs[0])
            if "error" in base or "error" in work:
                print(base, work, sep="\n")
                return 1
            theirs = {RECIPE_NAMES.get(n, n) for n in base}
            chosen: queue.Queue = queue.Queue()
            for name in base:
                if fnmatch.fnmatch(name, options.recipes) and RECIPE_NAMES.get(name, name) in work:
                    chosen.put(name)
            for name in sorted(theirs ^ set(work)):
                if fnmatch.fnmatch(name, options.recipes):
                    report.add(name, "", {"recipe": f"only in the {'base' if name in theirs else 'work tree'}"})
            pairs += [pair() for _ in range(min(options.jobs, chosen.qsize()) - 1)]
            threads = [threading.Thread(target=play_both, args=(chosen, p, folder, task, report)) for p in pairs]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        for side in [s for p in pairs for s in p]:
            side.close()
    seconds = time.monotonic() - started
    print(f"{report.count} compared with {options.base} in {seconds:.0f} s, {len(report.different)} differ", end="")
    print(": " + ", ".join(report.different) if report.different else "")
    return 1 if report.different or not report.count else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3] == "base", sys.argv[4])
    else:
        sys.exit(main())
