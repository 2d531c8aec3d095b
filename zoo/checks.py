"""Checks of what callers pass, with an error that names it. No torch here."""

from __future__ import annotations

import math
import numbers
import operator
import re
from typing import Any, SupportsIndex


def whole_number(value: object) -> int | None:
    """A whole number as an int; None for anything else, also for True and 2.0."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # a tensor of real numbers
        return None


def check_whole(key: str, value: object, least: int = 1) -> int:
    """The same number. Raises ValueError unless it is a whole number of at least ``least``."""
    number = whole_number(value)
    if number is None:
        raise ValueError(f"{key}={excerpt(value)}: must be a whole number of at least {least}")
    if number < least:
        raise ValueError(f"{key}={number}: must be at least {least}")
    return number


def check_number(key: str, value: object) -> None:
    """Raises ValueError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{key}={excerpt(value)}: must be a finite number")


def check_list(key: str, value: object, what: str) -> None:
    """Raises ValueError unless it is a list, a tensor or anything else with a length. ``what``: its items."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        raise ValueError(f"{key}={excerpt(value)}: must be a list of {what}")


def check_device(name: object, auto: bool = False) -> None:
    """Raises ValueError for a name that is no device's. (Whether the device exists is seen when it is used.)"""
    if not re.fullmatch(rf"{'auto|' if auto else ''}(cpu|cuda|mps)(:[0-9]+)?", str(name)):
        raise ValueError(f"device='{name}': must be {'auto, ' if auto else ''}cpu, cuda, cuda:N or mps")


def excerpt(value: Any) -> str:
    """A value in a message, at most 80 characters of it."""
    return repr(value)[:80]
