"""Registries: names for the leaves of the zoo (networks, games, losses, penalties, data sets, metrics).

A registry knows the package its entries live in and imports that package's modules on the first look-up,
so that a new leaf is one file and nothing else. Other distributions add leaves through an entry-point group
of the same name (``zoo.networks``, ``zoo.games``, ``zoo.losses``, ``zoo.penalties``, ``zoo.data``, ``zoo.metrics``): the entry
point names a module, and importing the module registers what it holds. No torch here.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class FrozenDict(dict):
    """A dict that can be hashed and not be changed: keyword arguments inside frozen specs."""

    def _frozen(self, *args, **kwargs):
        raise TypeError("a Spec is frozen; make a new one with Spec.replace(key=value)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _frozen

    def __hash__(self) -> int:
        return hash(tuple(sorted((k, _hashable(v)) for k, v in self.items())))

    def __reduce__(self):
        return (FrozenDict, (dict(self),))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((k, _hashable(v)) for k, v in value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, init=False)
class Spec:
    """A registered name and the keyword arguments to build it with: ``Spec("dcgan-generator", width=64)``."""

    name: str
    kwargs: Mapping[str, Any]

    def __init__(self, name: str, /, **kwargs: Any):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "kwargs", FrozenDict(kwargs))

    def replace(self, **kwargs: Any) -> Spec:
        """The same spec with some arguments changed or added."""
        return Spec(self.name, **{**self.kwargs, **kwargs})

    def __repr__(self) -> str:
        inside = "".join(f", {k}={v!r}" for k, v in self.kwargs.items())
        return f"Spec({self.name!r}{inside})"


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean a, b?' for a wrong name, or '' when nothing is near. Used by every name error."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [k for k in known if name and name in k][:3]
    return f"; did you mean {', '.join(close)}?" if close else ""


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match a shell pattern, sorted. A pattern without wildcards matches inside names."""
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return sorted(n for n in names if fnmatch.fnmatch(n, pattern))


class Registry:
    """Names to builders (functions or classes) of one kind."""

    def __init__(self, kind: str, package: str):
        """``kind``: what an entry is called in messages. ``package``: a package or module to import on first use;
        also the name of the entry-point group through which others add entries."""
        self.kind, self.package = kind, package
        self._entries: dict[str, Callable[..., Any]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Callable], Callable]:
        """Decorator: ``@NETWORKS.register("dcgan-generator")``. The same name twice is an error."""

        def add(builder: Callable) -> Callable:
            known = self._entries.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (
                builder.__module__,
                builder.__qualname__,
            ):
                raise ValueError(f"{self.kind} '{name}' is registered twice: {known.__module__}, {builder.__module__}")
            self._entries[name] = builder
            return builder

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ()), self.package + "."):
            importlib.import_module(module.name)
        for entry in importlib.metadata.entry_points(group=self.package):
            entry.load()

    def names(self, pattern: str = "*") -> list[str]:
        """All names that match a shell pattern, sorted. A pattern without wildcards matches inside names."""
        self._load()
        return matching(pattern, self._entries)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The builder called ``name``. ValueError with the nearest names where there is none."""
        self._load()
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")
        return self._entries[name]

    def parameters(self, name: str) -> Mapping[str, inspect.Parameter]:
        """The keyword arguments that ``name`` can be built with; those of its bases too, where a class hands on what it
        does not know itself (``**more``)."""
        builder = self[name]
        found = dict(inspect.signature(builder).parameters)
        for base in inspect.getmro(builder)[1:] if inspect.isclass(builder) else ():
            rest = [k for k, p in found.items() if p.kind is p.VAR_KEYWORD]
            if not rest or "__init__" not in vars(base):
                continue
            del found[rest[0]]
            found.update({k: p for k, p in inspect.signature(base).parameters.items() if k not in found})
        return found

    def check(self, spec: Spec | str) -> None:
        """ValueError where ``spec`` names nothing, or gives an argument that its builder does not take."""
        spec = Spec(spec) if isinstance(spec, str) else spec
        known = self.parameters(spec.name)
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return
        for key in spec.kwargs:
            if key not in known:
                raise ValueError(f"{self.kind} '{spec.name}' takes no argument '{key}'{nearest(key, known)}")

    def build(self, spec: Spec | str, /, *args: Any, defaults: Mapping[str, Any] | None = None) -> Any:
        """Build ``spec``. ``defaults`` are passed where the builder takes them and the spec is silent."""
        spec = Spec(spec) if isinstance(spec, str) else spec
        self.check(spec)
        known = self.parameters(spec.name)
        extra = {k: v for k, v in (defaults or {}).items() if k in known and k not in spec.kwargs}
        return self[spec.name](*args, **{**extra, **spec.kwargs})


NETWORKS = Registry("network", "zoo.networks")
LOSSES = Registry("loss", "zoo.losses")
PENALTIES = Registry("penalty", "zoo.penalties")
GAMES = Registry("game", "zoo.games")
DATASETS = Registry("data set", "zoo.data")
PRIORS = Registry("prior", "zoo.game")
METRICS = Registry("metric", "zoo.metrics")
