"""What a metric is: a function and a declaration of what it needs.

    @metric("mean-distance", needs=("generated", "reference"), better="lower")
    def mean_distance(generated, reference):
        return float((generated.mean - reference.mean).norm())

``zoo.metrics.inputs.INPUTS`` lists the inputs by name. :func:`zoo.evaluate` chooses metrics, and calls them, by these
declarations alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from zoo.metrics.inputs import PAIR_INPUTS, ScoreInputs
from zoo.registry import METRICS

P = ParamSpec("P")
R = TypeVar("R")
DEFAULTS: list[str] = []  # the metrics that are computed if none is named, in the order of their definition


@dataclass(eq=False)
class Metric(Generic[P, R]):
    """A registered function of its inputs.

    It returns a number, or a number and its error; if it needs pairs, a value for each pair, float [n].

    Args:
        name: Of the score.
        function: Called with the values of ``needs``, by position.
        needs: Names from ``zoo.metrics.inputs.INPUTS``.
        better: ``"lower"`` or ``"higher"``.
        default: Whether it is computed if no metric is named; None if it never is.
        missing: Why it cannot be computed although all inputs can; "" if it can.
    """

    name: str
    function: Callable[P, R]
    needs: Sequence[str]
    better: str
    default: Callable[[ScoreInputs], bool] | None
    missing: Callable[[ScoreInputs], str]

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def compares_pairs(self) -> bool:
        """Whether it has a value for each pair of images."""
        return bool(PAIR_INPUTS & set(self.needs))


AnyMetric = Metric[..., Any]


def find_metric(name: str) -> AnyMetric:
    """The metric called ``name``. Raises ValueError if there is none, or it has no declaration."""
    entry = METRICS[name]
    if not isinstance(entry, Metric):
        raise ValueError(f"metric '{name}': must be registered with zoo.metrics.metric.metric")
    return entry


def always(inputs: ScoreInputs) -> bool:
    """The ``default`` of a metric that is computed for every source that has its inputs."""
    return True


def metric(
    name: str,
    *,
    needs: Sequence[str],
    better: str,
    default: Callable[[ScoreInputs], bool] | None = None,
    missing: Callable[[ScoreInputs], str] = lambda inputs: "",
) -> Callable[[Callable[P, R]], Metric[P, R]]:
    """Decorator: register a function as a metric. See :class:`Metric` for the arguments.

    Raises ValueError if ``better`` is not a direction, or the name is taken.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"metric '{name}': better must be 'lower' or 'higher', got '{better}'")

    def add(function: Callable[P, R]) -> Metric[P, R]:
        new = Metric(name, function, tuple(needs), better, default, missing)
        METRICS.register(name)(new)
        if default is not None and name not in DEFAULTS:
            DEFAULTS.append(name)
        return new

    return add
