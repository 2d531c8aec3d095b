"""Values as text: numbers, and the entries of a recipe or a Card."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.checks import excerpt

LARGEST = 1e300


def number(value: object) -> float | None:
    """The value if it is a finite number below ``LARGEST``, else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST:
        return value
    return None


def number_text(value: float) -> str:
    """Four digits, or all digits before the point; of a value that is no such number its beginning."""
    if number(value) is None:
        return excerpt(value)
    return f"{value:,.0f}" if (value == int(value) or abs(value) >= 1000) and abs(value) < 1e12 else f"{value:.4g}"


def value_text(value: object) -> str:
    """A value of a recipe in a line; specs and dataclasses as calls."""
    if isinstance(value, Mapping):
        kind = value.get("@")
        arguments = value.get("kwargs", {}) if kind == "Spec" else {k: v for k, v in value.items() if k != "@"}
        listed = ", ".join(f"{k}={value_text(v)}" for k, v in arguments.items())
        name = value.get("name") if kind == "Spec" else kind or ""
        return f"{name}({listed})" if listed or kind != "Spec" else str(name)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def cell_text(value: object) -> str:
    """A value that is not a mapping, in a cell of a table."""
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(v) if isinstance(v, Mapping) else cell_text(v) for v in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_text(value)
    return str(value)


def duration(seconds: float) -> str:
    """5 d 02 h, 1 h 02 min, 2 min 03 s or 3 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
