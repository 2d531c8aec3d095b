"""The folder of a run: its files and its log."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from zoo.engine.runtime import Runtime
from zoo.files import beside, check_new, remove_partials
from zoo.recipe import Recipe, encode
from zoo.version import __version__

RECIPE, LOG, CHECKPOINT, WEIGHTS, SAMPLES = (
    "recipe.json",
    "log.jsonl",
    "checkpoint.safetensors",
    "weights.safetensors",
    "samples",
)


class RunFolder:
    """The folder of a run: recipe.json, log.jsonl, samples/*.png, checkpoint.safetensors, weights.safetensors."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe, runtime: Runtime, **facts: Any) -> RunFolder:
        """A new folder. ``facts``: what else a resumed run needs (seed, init, dataset_object). Raises ValueError as
        :func:`zoo.files.check_new`; if writing fails nothing is left."""
        run = cls(path)
        check_new(run.path)
        content = {"zoo": __version__, **facts, "runtime": asdict(runtime), "recipe": encode(recipe)}
        run.path.mkdir(parents=True, exist_ok=True)
        remove_partials(run.path)
        try:
            run._write_text(RECIPE, json.dumps(content, indent=2))
        except OSError:
            (run.path / RECIPE).unlink(missing_ok=True)
            run.path.rmdir()
            raise
        return run

    def _write_text(self, name: str, text: str) -> None:
        with beside(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def facts(self) -> dict[str, Any]:
        """The content of recipe.json. Raises ValueError if this is not the folder of a run."""
        try:
            return json.loads((self.path / RECIPE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            raise ValueError(f"run '{self.path}': no readable {RECIPE} there; is it the folder of a run?") from None

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what a run's result depends on: recipe and seed, as recipe.json has them when this is first
        asked for. Checkpoints have it too."""
        facts = self.facts()
        content = json.dumps([facts.get("recipe"), facts.get("seed")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def runtime(self, **changes: Any) -> Runtime:
        """The Runtime that the run was started with, with the ``changes`` that are not None."""
        stored = self.facts()["runtime"]
        choices = {f.name: stored[f.name] for f in fields(Runtime) if f.name in stored}  # of a run of any version
        return Runtime(**{**choices, **{k: v for k, v in changes.items() if v is not None}})

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to log.jsonl, written at once."""
        with open(self.path / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def cut_log(self, images: int) -> None:
        """Drop what was logged after the checkpoint from which a run continues (and a torn last line)."""
        if not (self.path / LOG).exists():
            return
        lines = []
        for line in (self.path / LOG).read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["images"] <= images:
                    lines.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue
        self._write_text(LOG, "".join(lines))

    def record_machine(self, machine: Mapping[str, Any], images: int) -> None:
        """Write into recipe.json on which machine the run continues from ``images`` real images, if it is another
        one."""
        content = self.facts()
        machines = content.get("machines", [])
        if not machines or {k: v for k, v in machines[-1].items() if k != "from_images"} != machine:
            content["machines"] = [*machines, {"from_images": images, **machine}]
            self._write_text(RECIPE, json.dumps(content, indent=2))
