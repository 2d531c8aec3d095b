"""zoo: every GAN of the paper timeline in one registry, trained by one engine."""

from __future__ import annotations

from pathlib import Path

from zoo.version import __version__

# In a checkout recipes/ lies beside zoo/; in an installation it is zoo/recipes. Both are imported as zoo.recipes.
_root = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "recipes").exists() and (_root / "setup.cfg").exists():
    __path__.append(str(_root))

__all__ = ["__version__"]
