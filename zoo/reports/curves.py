"""Curves as inline SVG, on a linear and on a logarithmic scale, so that they are visible without a script.

A frame is as wide as the page, but its text keeps its size: labels have positions in percent of the width, and only the
lines are in an inner, stretched SVG (0 to 1000 in x, 0 to ``HEIGHT`` in y).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zoo.files import Json
from zoo.reports.reading import CLOCK, Log, thin
from zoo.reports.values import number_text

HEIGHT = 200
COLORS = 6  # of the style sheet; the largest number of curves in a chart
POINTS = 400  # more points are reduced to the lowest and highest of each bucket
SMOOTH = 40  # the window of the mean is 1/SMOOTH of a curve
MAX_RATIO = 20.0  # of the ranges of curves in one frame


@dataclass
class Curve:
    """One logged key: y over x (real images seen), with the stage of each point."""

    key: str
    x: list[float]
    y: list[float]
    stage: list[int]

    @property
    def window(self) -> int:
        """The number of lines in a mean, odd; 1 means no smoothing."""
        return len(self.y) // SMOOTH // 2 * 2 + 1

    def smooth(self, most: int) -> Curve:
        """The centered mean over ``window`` points of the same stage (fewer at its ends), at no more than ``most``
        places."""
        reach, places = self.window // 2, thin(range(len(self.y)), most)
        means = []
        for i in places:
            window = range(max(0, i - reach), min(len(self.y), i + reach + 1))
            values = [self.y[j] for j in window if self.stage[j] == self.stage[i]]
            means.append(sum(values) / len(values))
        return Curve(self.key, [self.x[i] for i in places], means, [self.stage[i] for i in places])


@dataclass
class Chart:
    """Curves that share a frame."""

    title: str
    curves: list[Curve]
    dots: bool = False


def charts(log: Log) -> list[Chart]:
    """Scores, each in a frame of its own; losses; other logged keys, by the part before the slash; the speed."""
    groups: dict[str, list[Curve]] = {"scores": [], "loss": []}
    for key in [*log.keys, "images_per_second"]:
        lines = [line for line in log.lines if key in line]
        if lines:
            x, y = [line["images"] for line in lines], [line[key] for line in lines]
            curve = Curve(key, x, y, [int(line["stage"]) for line in lines])
            groups.setdefault(key.partition("/")[0] if key not in CLOCK else "speed", []).append(curve)
    result = [Chart(c.key.partition("/")[2], [c], dots=True) for c in groups.pop("scores")]
    for name, curves in groups.items():
        for group in group_by_range(curves):
            for i in range(0, len(group), COLORS):
                part = group[i : i + COLORS]
                result.append(Chart(", ".join(c.key for c in part) if len(part) <= 4 else name, part))
    return result


def group_by_range(curves: Sequence[Curve]) -> list[list[Curve]]:
    """The curves in groups of similar ranges, so that none looks flat in a common frame."""
    groups: list[tuple[float, list[Curve]]] = []
    for curve in curves:
        low, high = middle(curve.y)
        width = max(abs(low), abs(high), 1e-12)
        for first, group in groups:
            if 1 / MAX_RATIO <= width / first <= MAX_RATIO:
                group.append(curve)
                break
        else:
            groups.append((width, [curve]))
    return [group for _, group in groups]


def middle(values: Iterable[float], cut: float = 0.01) -> tuple[float, float]:
    """The lowest and highest of the values without a share ``cut`` at each end."""
    ordered = sorted(values)
    off = int(cut * len(ordered))
    return ordered[off], ordered[-1 - off]


# Scales ---------------------------------------------------------------------------------------------------------------


@dataclass
class Scale:
    """From values to 0..1 between ``low`` and ``high``, which may be logarithms."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends."""
        if not self.log:
            step = next(s for s in nice((self.high - self.low) / most) if (self.high - self.low) / s <= most)
            return [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]
        first, last = max(math.floor(self.low), -307), min(math.ceil(self.high), 307)  # powers of ten that are floats
        for steps in ((1,), (1, 3), (1, 2, 5)):
            every = max(1, math.ceil((last - first) / 6))
            values = [d * 10.0**k for k in range(first, last + 1, every) for d in steps]
            values = [v for v in values if -1e-9 <= self.at(v) <= 1 + 1e-9]
            if len(values) >= 3:
                return values
        return values or [10.0**first, 10.0**last]


def nice(about: float) -> list[float]:
    """1, 2 and 5 times powers of ten from ``about`` on."""
    power = 10.0 ** math.floor(math.log10(about))
    return [power, 2 * power, 5 * power, 10 * power, 20 * power]


def linear(values: Sequence[float]) -> Scale:
    """A scale for the values. A few outliers (a start, a spike) are left outside, so that the rest does not look
    flat."""
    (low, high), (inner_low, inner_high) = (min(values), max(values)), middle(values)
    if inner_high > inner_low and high - low > 3 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    edge = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - edge, high + edge)


def logarithmic(values: Sequence[float]) -> Scale | None:
    """A logarithmic scale; None unless all values are above 0 and differ by more than a factor of 10."""
    low, high = min(values), max(values)
    if low <= 0 or high / low <= 10:
        return None
    low, high = math.log10(low), math.log10(high)
    edge = 0.04 * (high - low)
    return Scale(low - edge, high + edge, log=True)


def spread_out(values: Sequence[float]) -> bool:
    """Whether most values, not only the extremes, span so much that a logarithmic scale shows more."""
    low, high = middle(values, 0.1)
    return low > 0 and high / low > 20


# Drawing --------------------------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """A number for an axis: 0.25, 40k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


@dataclass
class Frame:
    """The curves of a chart on one scale, as coordinates: ``rows`` (y, text) and ``columns`` (x, text, anchor) of the
    axes, ``stages`` (x), ``paths`` (SVG path, class)."""

    kind: str
    label: str
    rows: list[tuple[float, str]]
    columns: list[tuple[str, str, str]]
    stages: list[str]
    paths: list[tuple[str, str]]


@dataclass
class Figure:
    """A chart to draw. ``logarithmic``: which of two frames is visible first. ``rows``: key and (last, lowest, highest,
    first) value of each curve."""

    title: str
    caption: str
    frames: list[Frame]
    logarithmic: bool
    rows: list[tuple[str, tuple[float, float, float, float]]]


def figure(chart: Chart, end: float, stages: Sequence[float]) -> Figure:
    """``end``: images at the right edge. ``stages``: images at the starts of later stages."""
    values = [v for curve in chart.curves for v in curve.y]
    scales = [linear(values)]
    logs = logarithmic(values)
    if logs:
        scales.append(logs)
    rows = [(curve.key, (curve.y[-1], min(curve.y), max(curve.y), curve.y[0])) for curve in chart.curves]
    frames = [frame(chart, scale, end, stages) for scale in scales]
    return Figure(chart.title, caption(chart, scales[0]), frames, logs is not None and spread_out(values), rows)


def caption(chart: Chart, scale: Scale) -> str:
    """How the curves were made: smoothing, thinning, and the values outside the linear frame."""
    sentences = []
    window = max(curve.window for curve in chart.curves)
    if chart.dots:
        sentences.append("Each dot is one evaluation.")
    elif window > 1:
        sentences.append(
            f"Bold: centered mean over {window} lines of the log. Faint: each line, the mean of its rounds."
        )
    else:
        sentences.append("Each point is a line of the log, the mean of its rounds; not smoothed.")
    outside = [v for curve in chart.curves for v in curve.y if not 0 <= scale.at(v) <= 1]
    if outside:
        low, high = number_text(min(outside)), number_text(max(outside))
        span = f"{low} to {high}" if len(outside) > 1 else low
        count = sum(len(curve.y) for curve in chart.curves)
        sentences.append(f"Outside the linear frame: {len(outside)} of {count} values ({span}).")
    return " ".join(sentences)


def frame(chart: Chart, scale: Scale, end: float, stages: Sequence[float]) -> Frame:
    """The curves on one scale, with their axes."""

    def y(value: float) -> float:
        return round(HEIGHT * (1 - scale.at(value)), 1)

    columns = []
    for value in Scale(0, end).ticks(4):
        x = 100 * value / end
        columns.append((f"{x:.2f}%", short(value), "start" if x < 5 else "end" if x > 95 else "middle"))
    paths: list[tuple[str, str]] = []

    def add(curve: Curve, kind: str, joined: bool = True) -> None:
        points = [(1000 * u / end, y(v), stage) for u, v, stage in zip(curve.x, curve.y, curve.stage, strict=True)]
        paths.append((path(points) if joined else "".join(f"M{u:.1f} {v}h0" for u, v, _ in points), kind))

    for i, curve in enumerate(chart.curves):
        if curve.window > 1 and not chart.dots:
            add(curve, f"c{i} faint")
            curve = curve.smooth(POINTS)
        add(curve, f"c{i}")
        if chart.dots or len(curve.y) == 1:
            add(curve, f"c{i} dots", joined=False)
    kind = "logarithmic" if scale.log else "linear"
    keys = ", ".join(curve.key for curve in chart.curves)
    label = f"{keys} over real images seen, {kind} scale; the table below has the numbers"
    rows = [(y(v), short(v)) for v in scale.ticks()]
    return Frame(kind, label, rows, columns, [f"{100 * x / end:.2f}%" for x in stages], paths)


def path(points: Sequence[tuple[float, float, int]]) -> str:
    """An SVG path through points (x, y, stage), interrupted between stages."""
    if len(points) > POINTS:
        size = math.ceil(2 * len(points) / POINTS)
        buckets = [points[i : i + size] for i in range(0, len(points), size)]
        points = [p for b in buckets for p in dict.fromkeys(sorted((min(b, key=height), max(b, key=height))))]
    parts, last = [], None
    for x, y, stage in points:
        parts.append(f"{'L' if stage == last else 'M'}{x:.1f} {y}")
        last = stage
    return "".join(parts)


def height(point: tuple[float, float, int]) -> float:
    return point[1]


def readings(log: Log, most: int = 2000) -> Json:
    """The values that the page's script reads: all lines with scores and at most ``most`` others, by key."""
    scores = [line for line in log.lines if any(k.startswith("scores/") for k in line)]
    others = [line for line in log.lines if not any(k.startswith("scores/") for k in line)]
    lines = sorted([*scores, *thin(others, most)], key=lambda line: line["images"])
    keys = ["seconds", "images_per_second", *log.keys]
    columns = {k: [float(f"{line[k]:.5g}") if k in line else None for line in lines] for k in keys}
    return {"images": [line["images"] for line in lines], "keys": columns}
