"""The folder of a run: its files and its log."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.engine.checkpoint import CHECKPOINT
from zoo.engine.runtime import Runtime
from zoo.files import LOCK, beside, check_name, check_new, is_new, lock, remove_partials, shell_word
from zoo.overrides import check, fits, type_name
from zoo.recipe import Recipe, decode, encode
from zoo.registry import nearest
from zoo.seeds import MAX_SEED
from zoo.version import __version__

RECIPE, LOG, WEIGHTS, SAMPLES = "recipe.json", "log.jsonl", "weights.safetensors", "samples"
STAGE_WEIGHTS = "weights-stage-{}.safetensors"  # as a stage ends that is not the last one, from 1

# Of recipe.json: field, types, in words
FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("recipe", dict, "an object"),
    ("runtime", dict, "an object"),
    ("seed", int, "a whole number"),
    ("init", (str, type(None)), "a path, a name or null"),
    ("dataset_object", bool, "true or false"),
)


def default_folders(name: str, seed: int) -> Iterator[Path]:
    """``runs/NAME-seedS``, ``runs/NAME-seedS-2``, ``runs/NAME-seedS-3``, ..."""
    first = f"{check_name(name, 'recipe ')}-seed{seed}"
    yield Path("runs") / first
    for count in itertools.count(2):
        yield Path("runs") / f"{first}-{count}"


@contextlib.contextmanager
def new_run(out: str | Path | None, recipe: Recipe, runtime: Runtime, seed: int, **facts: Any) -> Iterator[RunFolder]:
    """A new run's folder, locked in the block. ``out``: None takes the first of :func:`default_folders` that is new.
    ``facts``: what else a resumed run needs (init, dataset_object, code).

    After an error in the block before the first checkpoint nothing is left, since no one could resume it. Raises
    ValueError as :func:`zoo.files.check_new`, or if another process has the folder.
    """
    if out is not None:
        check_new(out)
    with contextlib.ExitStack() as stack:
        for path in [Path(out)] if out is not None else default_folders(recipe.name, seed):
            if not is_new(path):
                continue
            stack.callback(remove_empty, [p for p in (path, *path.parents) if not p.exists()])
            path.mkdir(parents=True, exist_ok=True)
            run = RunFolder(path)
            try:
                with contextlib.ExitStack() as attempt:
                    attempt.enter_context(run.lock())
                    check_new(path)  # again: another process may have been quicker
                    stack.push(attempt.pop_all())
            except ValueError:
                if out is not None:
                    raise
                continue
            break
        remove_partials(path)
        try:
            content = {"zoo": __version__, "seed": seed, **facts, "runtime": asdict(runtime), "recipe": encode(recipe)}
            run.write_text(RECIPE, json.dumps(content, indent=2))
            yield run
        except BaseException:
            if not (path / CHECKPOINT).exists():
                run.clear()
            raise


def needs_object(facts: Mapping[str, Any]) -> bool:
    """Whether a run goes on with a data set that its user gives as an object, since no name is known for it. ``facts``:
    of recipe.json."""
    return bool(facts.get("dataset_object")) and "dataset" not in facts.get("changes", {})


def resume_command(path: Path, from_object: bool) -> str:
    """What continues a run: a command, or a line of Python if its data set was given as an object."""
    return f"zoo.resume({str(path)!r}, dataset=...)" if from_object else f"zoo resume {shell_word(path)}"


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders that are empty, the innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


class RunFolder:
    """The folder of a run: recipe.json, log.jsonl, samples/*.png, checkpoint.safetensors, weights.safetensors, those of
    the earlier stages as they ended, weights-stage-1.safetensors, ...; and ``.lock`` while a process trains it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """In the block no other process can train or resume the run. Raises ValueError if another process does."""
        return lock(self.path / LOCK, f"run '{self.path}'")

    def clear(self) -> None:
        """Remove the files of a run that has no checkpoint."""
        shutil.rmtree(self.path / SAMPLES, ignore_errors=True)
        for name in (RECIPE, LOG, WEIGHTS):
            (self.path / name).unlink(missing_ok=True)

    def copy_stage_weights(self, index: int) -> None:
        """Copy the weights as they are now, at the end of stage ``index`` (from 0), atomically."""
        with beside(self.path / STAGE_WEIGHTS.format(index + 1)) as partial:
            shutil.copyfile(self.path / WEIGHTS, partial)

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder, atomically."""
        with beside(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def facts(self) -> dict[str, Any]:
        """The content of recipe.json. Raises ValueError if this is not the folder of a run, or a field is missing or of
        another type."""
        try:
            facts = json.loads((self.path / RECIPE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise ValueError(f"run '{self.path}': no readable {RECIPE} there; is it the folder of a run?") from None
        if not isinstance(facts, dict):
            raise self.wrong("it must be a JSON object")
        for key, types, expected in FIELDS:
            if key not in facts:
                raise self.wrong(f"'{key}' is missing")
            if not isinstance(facts[key], types) or (types is int and isinstance(facts[key], bool)):
                raise self.wrong(f"{key}={str(facts[key])[:80]!r}: must be {expected}")
        if not 0 <= facts["seed"] <= MAX_SEED:
            raise self.wrong(f"seed={facts['seed']}: must be from 0 to {MAX_SEED}")
        return facts

    @functools.cached_property
    def code(self) -> str | None:
        """The SHA-256 of the recipe file that the run was started with; None if that was none of the user's own."""
        code = self.facts().get("code")
        return code if isinstance(code, str) else None

    def wrong(self, reason: object) -> ValueError:
        """The error of a recipe.json that is not a run's."""
        text = " ".join(str(reason).split())[:300]
        return ValueError(f"run '{self.path}': {RECIPE}: {text}; is it the folder of a run?")

    def recipe(self) -> Recipe:
        """The recipe in recipe.json, checked. Raises ValueError if it is none."""
        plain = self.facts()["recipe"]
        try:
            recipe = decode(plain)
            if not isinstance(recipe, Recipe):
                raise ValueError("recipe: must be a Recipe")
            check(recipe)
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise self.wrong(error) from None
        return recipe

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what a run's result depends on: recipe and seed, as recipe.json has them when this is first
        asked for. Checkpoints have it too."""
        facts = self.facts()
        content = json.dumps([facts.get("recipe"), facts.get("seed")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def runtime(self, **changes: Any) -> Runtime:
        """The Runtime that the run was started with, with the ``changes`` that are not None."""
        own = self.facts()["runtime"]
        fields = typing.get_type_hints(Runtime)
        for key, value in own.items():
            if key not in fields:
                raise self.wrong(f"runtime: no '{key}'{nearest(key, fields)}")
            if not fits(value, fields[key]):
                raise self.wrong(f"runtime.{key}={str(value)[:80]!r}: must be {type_name(fields[key])}")
        return Runtime(**{**own, **{k: v for k, v in changes.items() if v is not None}})

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to log.jsonl, written at once."""
        handle = os.open(self.path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with open(handle, "a", encoding="utf-8") as file:  # a link in a foreign run would lead elsewhere
            file.write(json.dumps(line) + "\n")

    def cut_log(self, images: int) -> None:
        """Drop what was logged after the checkpoint from which a run continues (and a torn last line)."""
        if not (self.path / LOG).exists():
            return
        lines = []
        for line in (self.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines():
            at = images_of(line)
            if at is not None and at <= images:
                lines.append(line + "\n")
        self.write_text(LOG, "".join(lines))

    def record_machine(self, machine: Mapping[str, Any], images: int) -> None:
        """Write into recipe.json on which machine the run continues from ``images`` real images, if it is another
        one."""
        content = self.facts()
        machines = content.get("machines", [])
        if not isinstance(machines, list) or not all(isinstance(m, dict) for m in machines):
            raise self.wrong("machines: must be a list of objects")
        if not machines or {k: v for k, v in machines[-1].items() if k != "from_images"} != machine:
            content["machines"] = [*machines, {"from_images": images, **machine}]
            self.write_text(RECIPE, json.dumps(content, indent=2))


def images_of(line: str) -> float | None:
    """The images seen of a line of the log; None for a line that is none, a torn one say."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    images = value.get("images") if isinstance(value, dict) else None
    return images if isinstance(images, (int, float)) and not isinstance(images, bool) else None
