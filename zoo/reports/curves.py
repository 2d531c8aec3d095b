"""Curves as inline SVG: drawn here, once on a linear and once on a logarithmic scale, so that they show without a script.

A frame is as wide as the page allows while its text keeps its size: labels stand at percentages of the width, and only
the lines lie in an inner, stretched drawing (0 to 1000 across, 0 to ``HEIGHT`` down).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.reports.html import Html, plain, tag
from zoo.reports.reading import CLOCK, Log, thin

HEIGHT = 200
COLORS = 6  # as many as the style sheet has; a chart holds no more curves
POINTS = 400  # more are drawn as the lowest and highest of each bucket
SMOOTH = 40  # the window of the mean is this part of a curve
ALIKE = 20.0  # curves of one group share a frame unless their ranges differ by more than this factor


@dataclass
class Curve:
    """One logged key: y over x (real images seen), with the stage of each point."""

    key: str
    x: list[float]
    y: list[float]
    stage: list[int]

    @property
    def window(self) -> int:
        """Neighboring lines in a mean, an odd number; 1 is no smoothing."""
        return len(self.y) // SMOOTH // 2 * 2 + 1

    def smooth(self, most: int) -> Curve:
        """The centered mean over ``window`` points, fewer at the ends of a stage and none of another stage, at ``most``
        places at most."""
        reach, places = self.window // 2, thin(range(len(self.y)), most)
        means = []
        for i in places:
            near = range(max(0, i - reach), min(len(self.y), i + reach + 1))
            around = [self.y[j] for j in near if self.stage[j] == self.stage[i]]
            means.append(sum(around) / len(around))
        return Curve(self.key, [self.x[i] for i in places], means, [self.stage[i] for i in places])


@dataclass
class Chart:
    """Curves that share a frame."""

    title: str
    curves: list[Curve]
    dots: bool = False


def charts(log: Log) -> list[Chart]:
    """Scores, each in a frame of its own; losses; what else is logged, by the part before the slash; the speed."""
    groups: dict[str, list[Curve]] = {"scores": [], "loss": []}
    for key in [*log.keys, "images_per_second"]:
        held = [line for line in log.lines if key in line]
        if held:
            x, y = [line["images"] for line in held], [line[key] for line in held]
            curve = Curve(key, x, y, [int(line["stage"]) for line in held])
            groups.setdefault(key.partition("/")[0] if key not in CLOCK else "speed", []).append(curve)
    made = [Chart(c.key.partition("/")[2], [c], dots=True) for c in groups.pop("scores")]
    for name, curves in groups.items():
        for alike in together(curves):
            for i in range(0, len(alike), COLORS):
                some = alike[i : i + COLORS]
                made.append(Chart(", ".join(c.key for c in some) if len(some) <= 4 else name, some))
    return made


def together(curves: Sequence[Curve]) -> list[list[Curve]]:
    """The curves in sets whose ranges are alike, so that none is flat beside another."""
    sets: list[tuple[float, list[Curve]]] = []
    for curve in curves:
        low, high = middle(curve.y)
        width = max(abs(low), abs(high), 1e-12)
        for first, held in sets:
            if 1 / ALIKE <= width / first <= ALIKE:
                held.append(curve)
                break
        else:
            sets.append((width, [curve]))
    return [held for _, held in sets]


def middle(values: Iterable[float], cut: float = 0.01) -> tuple[float, float]:
    """The lowest and highest of the values but for a share ``cut`` at each end."""
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
        first, last = math.floor(self.low), math.ceil(self.high)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            every = max(1, math.ceil((last - first) / 6))
            held = [d * 10.0**k for k in range(first, last + 1, every) for d in steps]
            held = [v for v in held if -1e-9 <= self.at(v) <= 1 + 1e-9]
            if len(held) >= 3:
                return held
        return held or [10**self.low, 10**self.high]


def nice(about: float) -> list[float]:
    """1, 2 and 5 times powers of ten from ``about`` on."""
    power = 10.0 ** math.floor(math.log10(about))
    return [power, 2 * power, 5 * power, 10 * power, 20 * power]


def linear(values: Sequence[float]) -> Scale:
    """A frame for the values. Few that lie far off (a start, a spike) don't flatten the rest: they leave the frame."""
    (low, high), (inner_low, inner_high) = (min(values), max(values)), middle(values)
    if inner_high > inner_low and high - low > 3 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    edge = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - edge, high + edge)


def logarithmic(values: Sequence[float]) -> Scale | None:
    """A frame of logarithms, where all values are above 0 and differ by more than a factor of 10."""
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


def draw(chart: Chart, end: float, stages: Sequence[float], number: int) -> Html:
    """The figure of a chart. ``end``: images at the right edge; ``stages``: where later stages begin; ``number``: the
    chart's, for what must have a name of its own on the page."""
    values = [v for curve in chart.curves for v in curve.y]
    scales = [linear(values)]
    logs = logarithmic(values)
    switch: list[Any] = []
    if logs:
        scales.append(logs)
        name = f"log{number}"
        switch = [
            tag("input", type="checkbox", id=name, class_="switch", checked=spread_out(values)),
            tag("label", "logarithmic scale", for_=name),
        ]
    frames = [frame(chart, scale, end, stages) for scale in scales]
    return tag(
        "figure",
        tag("figcaption", tag("h3", chart.title), tag("p", caption(chart, scales[0]), class_="note")),
        *switch,
        frames,
        tag("output", class_="readout", aria_live="off"),
        table(chart),
        class_="chart",
        data_end=end,
    )


def caption(chart: Chart, scale: Scale) -> str:
    """How the curves were made: smoothing, thinning, and what lies outside the linear frame."""
    said = []
    window = max(curve.window for curve in chart.curves)
    if chart.dots:
        said.append("Each dot is one evaluation.")
    elif window > 1:
        said.append(f"Bold: centered mean over {window} lines of the log. Faint: each line, the mean of its rounds.")
    else:
        said.append("Each point is a line of the log, the mean of its rounds; not smoothed.")
    outside = [v for curve in chart.curves for v in curve.y if not 0 <= scale.at(v) <= 1]
    if outside:
        span = f"{plain(min(outside))} to {plain(max(outside))}" if len(outside) > 1 else plain(outside[0])
        count = sum(len(curve.y) for curve in chart.curves)
        said.append(f"Outside the linear frame: {len(outside)} of {count} values ({span}).")
    return " ".join(said)


def frame(chart: Chart, scale: Scale, end: float, stages: Sequence[float]) -> Html:
    """The curves on one scale, with their axes."""

    def y(value: float) -> float:
        return round(HEIGHT * (1 - scale.at(value)), 1)

    rows = [(y(v), short(v)) for v in scale.ticks()]
    marks = [(100 * v / end, short(v)) for v in Scale(0, end).ticks(4)]
    left = [tag("text", said, x="88%", y=at, class_="y") for at, said in rows]
    lines = [tag("line", x1=0, x2="100%", y1=at, y2=at) for at, _ in rows]
    lines += [
        tag("line", x1=f"{100 * at / end:.2f}%", x2=f"{100 * at / end:.2f}%", y1=0, y2=HEIGHT, class_="stage")
        for at in stages
    ]
    anchors = ["start" if at < 5 else "end" if at > 95 else "middle" for at, _ in marks]
    below = [
        tag("text", said, x=f"{at:.2f}%", y=HEIGHT + 18, text_anchor=anchor)
        for (at, said), anchor in zip(marks, anchors, strict=True)
    ]
    paths: list[Html] = []

    def add(curve: Curve, kind: str, joined: bool = True) -> None:
        at = [(1000 * u / end, y(v), stage) for u, v, stage in zip(curve.x, curve.y, curve.stage, strict=True)]
        d = path(at) if joined else "".join(f"M{u:.1f} {v}h0" for u, v, _ in at)
        paths.append(tag("path", d=d, class_=kind))

    for i, curve in enumerate(chart.curves):
        if curve.window > 1 and not chart.dots:
            add(curve, f"c{i} faint")
            curve = curve.smooth(POINTS)
        add(curve, f"c{i}")
        if chart.dots or len(curve.y) == 1:
            add(curve, f"c{i} dots", joined=False)
    how = "logarithmic" if scale.log else "linear"
    keys = ", ".join(curve.key for curve in chart.curves)
    said = f"{keys} over real images seen, {how} scale; the table below has the numbers"
    inner = dict(viewBox=f"0 0 1000 {HEIGHT}", preserveAspectRatio="none", width="100%", height=HEIGHT, class_="curves")
    return tag(
        "div",
        tag("svg", left, class_="axis", width=56, height=HEIGHT + 26, aria_hidden="true"),
        tag(
            "div",
            tag(
                "svg",
                lines,
                tag("svg", paths, **inner),
                below,
                tag("line", class_="cursor grid-at", y1=0, y2=HEIGHT),
                tag("line", class_="cursor hover", y1=0, y2=HEIGHT),
                role="img",
                aria_label=said,
                width="100%",
                height=HEIGHT + 26,
            ),
            class_="area",
        ),
        class_=f"frame {how}",
    )


def path(points: Sequence[tuple[float, float, int]]) -> str:
    """A line through points (across, down, stage), broken where a stage ends."""
    if len(points) > POINTS:
        size = math.ceil(2 * len(points) / POINTS)
        buckets = [points[i : i + size] for i in range(0, len(points), size)]
        points = [p for b in buckets for p in dict.fromkeys(sorted((min(b, key=height), max(b, key=height))))]
    made, last = [], None
    for x, y, part in points:
        made.append(f"{'L' if part == last else 'M'}{x:.1f} {y}")
        last = part
    return "".join(made)


def height(point: tuple[float, float, int]) -> float:
    return point[1]


def table(chart: Chart) -> Html:
    """The legend, with the numbers that a curve shows."""
    head = tag("tr", [tag("th", name, scope="col") for name in ("key", "last", "lowest", "highest", "first")])
    rows = []
    for i, curve in enumerate(chart.curves):
        numbers = (curve.y[-1], min(curve.y), max(curve.y), curve.y[0])
        key = tag("th", tag("span", class_=f"mark c{i}"), curve.key, scope="row")
        rows.append(tag("tr", key, [tag("td", plain(v)) for v in numbers], data_key=curve.key))
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", rows)),
        class_="scroll",
        tabindex=0,
        role="group",
        aria_label="Numbers",
    )


def readings(log: Log, most: int = 2000) -> dict[str, Any]:
    """What the page's script reads values from: all lines with scores and at most ``most`` others, by key."""
    scored = [line for line in log.lines if any(k.startswith("scores/") for k in line)]
    others = [line for line in log.lines if not any(k.startswith("scores/") for k in line)]
    lines = sorted([*scored, *thin(others, most)], key=lambda line: line["images"])
    keys = ["seconds", "images_per_second", *log.keys]
    columns = {k: [float(f"{line[k]:.5g}") if k in line else None for line in lines] for k in keys}
    return {"images": [line["images"] for line in lines], "keys": columns}
