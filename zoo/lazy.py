"""Packages whose modules are attributes, each imported when it is first used: ``zoo.networks.dcgan``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType


def submodules(package: str) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package: its modules, beside what it has already."""
    module = sys.modules[package]

    def names() -> set[str]:
        return {info.name for info in pkgutil.iter_modules(module.__path__)}

    def get(name: str) -> ModuleType:
        if name.startswith("_") or name not in names():
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return importlib.import_module(f"{package}.{name}")

    def listed() -> list[str]:
        own = {name for name in vars(module) if name.startswith("__")}
        return sorted(own | names())

    return get, listed
