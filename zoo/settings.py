"""Settings: the recipes, by model, data set and variant. No torch here, so that ``zoo list`` is quick."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from zoo.recipe import Recipe
from zoo.registry import matching, nearest


class Setting(TypedDict):
    """One entry of ``RECIPES``. ``about``: the first line of the function's docstring; ``doc``: the file's
    docstring. ``names``: by a data set's field, the names that the function is built for by default; ``build`` takes
    others."""

    build: Callable[..., Recipe]
    model: str
    dataset: str
    variant: str
    about: str
    doc: str
    names: dict[str, tuple[str, ...]]


RECIPES: dict[str, Setting] = {}  # by the recipe's name


def is_small(variant: str) -> bool:
    """Whether a variant is a reduced setting, by its name: ``small``, ``conditional-small``."""
    return variant.split("-")[-1] == "small"


def kind(variant: str) -> str:
    """A variant without ``small``: ``conditional`` of ``conditional-small``."""
    return variant.removesuffix("small").removesuffix("-") if is_small(variant) else variant


def setting(dataset: str, variant: str = "") -> Callable[[Callable[..., Recipe]], Callable[..., Recipe]]:
    """Decorator of a function that returns a :class:`Recipe`. The model's id is the file's name.

    The function has no arguments but those named after a field of the data set: the names of a label's values, or of
    attributes (``domain=("noto", "twemoji")``, ``attributes=("Male", "Young")``). Their defaults are those of its own
    data set; for other data it is called with theirs (:mod:`zoo.adapt`).
    """

    def add(function: Callable[..., Recipe]) -> Callable[..., Recipe]:
        model = function.__module__.rpartition(".")[2].replace("_", "-")

        @functools.wraps(function)
        def build(**names: tuple[str, ...]) -> Recipe:
            return function(**names).replace(model=model, dataset=dataset, variant=variant)

        about = (inspect.getdoc(function) or "").split("\n")[0]
        doc = sys.modules[function.__module__].__doc__ or ""
        parameters = inspect.signature(function).parameters
        names = {key: p.default for key, p in parameters.items() if isinstance(p.default, tuple)}
        RECIPES["-".join(filter(None, (model, dataset, variant)))] = Setting(
            build=build, model=model, dataset=dataset, variant=variant, about=about, doc=doc, names=names
        )
        return build

    return add


def _load_all() -> None:
    package = importlib.import_module("zoo.recipes")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f"zoo.recipes.{module.name}")


def names(pattern: str = "*") -> list[str]:
    """The recipes whose name matches a shell pattern (a pattern without wildcards matches inside names)."""
    _load_all()
    return matching(pattern, RECIPES)


def models(pattern: str = "*") -> list[str]:
    """The models that have a recipe."""
    return matching(pattern, {RECIPES[n]["model"] for n in names()})


def load_file(path: str | Path) -> str:
    """Read a recipe file of the user's own and add its settings to ``RECIPES``. Returns the model's id. The file may
    import modules from its folder.

    Raises ValueError if there is no such file, if it raises an error, or if there is no setting in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"recipe file '{path}': no such file")
    spec = importlib.util.spec_from_file_location(f"recipe_file.{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        import traceback

        del sys.modules[spec.name]
        if isinstance(error, SyntaxError):
            lines, text = [error.lineno], error.msg
        else:
            frames = traceback.extract_tb(error.__traceback__)
            lines, text = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()], str(error)
        line = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"recipe file '{path}'{line}: {type(error).__name__}: {text}") from error
    model = path.stem.replace("_", "-")
    if not any(e["model"] == model for e in RECIPES.values()):
        raise ValueError(f"recipe file '{path}': must have a function decorated with @setting(dataset)")
    return model


def find(model: str, dataset: str | None = None, variant: str = "") -> Recipe:
    """The recipe of a model on a data set. ``model`` may be a recipe's full name, or the path of a recipe file.

    If the model has no setting for ``dataset``, its first setting of that variant is taken with the data set replaced;
    nothing else changes but zero-padding, which is dropped. Raises ValueError for an unknown model or variant.
    """
    if model.endswith(".py"):
        model = load_file(model)
    else:
        _load_all()
    if model in RECIPES and dataset is None and not variant:
        return RECIPES[model]["build"]()
    entries = [e for e in RECIPES.values() if e["model"] == model]
    if not entries and model in RECIPES:
        entry = RECIPES[model]
        dataset, variant = dataset or entry["dataset"], variant or entry["variant"]
        command = f"{entry['model']} --dataset {dataset}{f' --variant {variant}' if variant else ''}"
        raise ValueError(
            f"model '{model}': must be a model's id, got a recipe's name, which fixes data set and variant; "
            f"write zoo train {command}"
        )
    if not entries:
        if Path(f"{model}.py").is_file():
            raise ValueError(f"unknown model '{model}'; the recipe file is {model}.py")
        options = {e["model"] for e in RECIPES.values()} | (set(RECIPES) if dataset is None and not variant else set())
        raise ValueError(f"unknown model '{model}'{nearest(model, options)} (zoo list models)")
    entries = [e for e in entries if e["variant"] == variant]
    if not entries:
        variants = sorted({e["variant"] for e in RECIPES.values() if e["model"] == model} - {""})
        raise ValueError(f"model '{model}' has no variant '{variant}'; it has: {', '.join(variants) or 'none'}")
    for entry in entries:
        if dataset in (None, entry["dataset"]):
            return entry["build"]()
    assert dataset is not None
    recipe = entries[0]["build"]()
    stages = tuple(dataclasses.replace(s, data=dataclasses.replace(s.data, pad=False)) for s in recipe.stages)
    return recipe.replace(dataset=dataset, stages=stages)
