"""Registries: names for the parts of the zoo (networks, games, losses, penalties, heads, augmentations, data sets,
metrics, tasks).

A registry imports the modules of its package on the first look-up, so that a new entry is one file and nothing else.
Other distributions add entries through an entry-point group of the same name (``zoo.networks``, ``zoo.games``,
``zoo.losses``, ``zoo.penalties``, ``zoo.heads``, ``zoo.augment``, ``zoo.data``, ``zoo.priors``, ``zoo.metrics``,
``zoo.models``): the entry point names a module, and importing the module registers its entries. No torch here.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.metadata
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

AnyBuilder = Callable[..., Any]
Builder = TypeVar("Builder", bound=AnyBuilder)


class FrozenDict(dict):
    """A dict that can be hashed and cannot be changed: keyword arguments inside frozen specs."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a Spec is frozen; make a new one with Spec.replace(key=value)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict cannot be hashed, this one can
        return hash(tuple(sorted((k, _hashable(v)) for k, v in self.items())))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict]]:
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
        arguments = "".join(f", {k}={v!r}" for k, v in self.kwargs.items())
        return f"Spec({self.name!r}{arguments})"


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean a, b?`` for a wrong name, or '' if no name is close. Used by every name error."""
    names = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [n for n in names if name and name in n][:3]
    return f"; did you mean {', '.join(close)}?" if close else ""


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match a shell pattern, sorted. A pattern without wildcards matches inside names."""
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return sorted(n for n in names if fnmatch.fnmatch(n, pattern))


# One lock for all registries: modules of one kind import those of another. The thread that imports may enter again.
_IMPORTS = threading.RLock()


class Registry:
    """Names to builders (functions or classes) of one kind."""

    def __init__(self, kind: str, package: str):
        """``kind``: the word for an entry in messages. ``package``: a package or module to import on first use; also
        the name of the entry-point group through which others add entries."""
        self.kind, self.package = kind, package
        self._entries: dict[str, AnyBuilder] = {}
        self._loaded = self._loading = False

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Decorator: ``@NETWORKS.register("dcgan-generator")``. Raises ValueError if the name is registered already."""

        def add(builder: Builder) -> Builder:
            first = self._entries.get(name)
            # A module that is imported again under the same name may register its builders again.
            if first is not None and _origin(first) != _origin(builder):
                raise ValueError(f"{self.kind} '{name}' is registered twice: {first.__module__}, {builder.__module__}")
            self._entries[name] = builder
            return builder

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        with _IMPORTS:
            # A module that is being imported may look up what is registered so far; other threads wait for all of it.
            if self._loaded or self._loading:
                return
            self._loading = True
            try:
                self._import_all()
                self._loaded = True
            finally:
                self._loading = False

    def _import_all(self) -> None:
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

    def __getitem__(self, name: str) -> AnyBuilder:
        """The builder called ``name``. Raises ValueError with the nearest names if there is none."""
        self._load()
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")
        return self._entries[name]

    def parameters(self, name: str) -> Mapping[str, inspect.Parameter]:
        """The keyword arguments of a builder; those of its base classes too if it passes ``**kwargs`` on to them."""
        builder = self[name]
        parameters = dict(inspect.signature(builder).parameters)
        for base in inspect.getmro(builder)[1:] if inspect.isclass(builder) else ():
            rest = [k for k, p in parameters.items() if p.kind is p.VAR_KEYWORD]
            if not rest or "__init__" not in vars(base):
                continue
            del parameters[rest[0]]
            more = inspect.signature(base).parameters.items()
            parameters.update({k: p for k, p in more if k not in parameters})
        return parameters

    def check(self, spec: Spec | str) -> None:
        """Raises ValueError if no entry has the name of ``spec``, or its builder does not take one of the arguments."""
        spec = Spec(spec) if isinstance(spec, str) else spec
        parameters = self.parameters(spec.name)
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return
        for key in spec.kwargs:
            if key not in parameters:
                raise ValueError(f"{self.kind} '{spec.name}' takes no argument '{key}'{nearest(key, parameters)}")

    def build(self, spec: Spec | str, /, *args: Any, defaults: Mapping[str, Any] | None = None) -> Any:
        """Build ``spec``. ``defaults``: arguments that are passed if the builder takes them and the spec does not set
        them."""
        spec = Spec(spec) if isinstance(spec, str) else spec
        self.check(spec)
        parameters = self.parameters(spec.name)
        extra = {k: v for k, v in (defaults or {}).items() if k in parameters and k not in spec.kwargs}
        return self[spec.name](*args, **{**extra, **spec.kwargs})


def _origin(builder: AnyBuilder) -> tuple[str, str]:
    return builder.__module__, builder.__qualname__


NETWORKS = Registry("network", "zoo.networks")
LOSSES = Registry("loss", "zoo.losses")
PENALTIES = Registry("penalty", "zoo.penalties")
HEADS = Registry("head", "zoo.heads")
AUGMENTATIONS = Registry("augmentation", "zoo.augment")
GAMES = Registry("game", "zoo.games")
DATASETS = Registry("data set", "zoo.data")
PRIORS = Registry("prior", "zoo.priors")
METRICS = Registry("metric", "zoo.metrics")
TASKS = Registry("task", "zoo.models")
