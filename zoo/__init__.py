"""zoo: GANs of the paper timeline in one registry, trained by one engine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.version import __version__

# In a checkout recipes/ is next to zoo/; in an installation it is zoo/recipes. Both are imported as zoo.recipes.
_root = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "recipes").exists() and (_root / "setup.cfg").exists():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from zoo import data, losses, metrics, networks, penalties
    from zoo.api import create, list_datasets, list_models, list_recipes, list_weights, report, resume, train
    from zoo.hub import load
    from zoo.metrics.evaluate import evaluate

# Imported on first use, so that `import zoo` imports no torch.
_PUBLIC = {
    "create": "zoo.api",
    "evaluate": "zoo.metrics.evaluate",
    "list_datasets": "zoo.api",
    "list_models": "zoo.api",
    "list_recipes": "zoo.api",
    "list_weights": "zoo.api",
    "load": "zoo.hub",
    "report": "zoo.api",
    "resume": "zoo.api",
    "train": "zoo.api",
}

__all__ = [
    "__version__",
    "create",
    "data",
    "evaluate",
    "list_datasets",
    "list_models",
    "list_recipes",
    "list_weights",
    "load",
    "losses",
    "metrics",
    "networks",
    "penalties",
    "recipes",
    "report",
    "resume",
    "train",
]


# Parts for a loop of one's own, modules that are imported on first use too.
_PARTS = ("data", "losses", "metrics", "networks", "penalties", "recipes")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"zoo.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
