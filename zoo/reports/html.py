"""Elements of HTML and SVG, whose text is escaped because it can't be otherwise: only what this module made is markup."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

VOID = {"br", "img", "input", "link", "meta"}


class Html(str):
    """Markup. Any other value is text, and escaped where it is put into an element."""


def text(*parts: Any) -> Html:
    """Markup and texts, one after the other; iterables are laid flat, None is nothing."""
    made = []
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, str) and isinstance(part, Iterable):
            made.append(text(*part))
        else:
            made.append(part if isinstance(part, Html) else html.escape(str(part)))
    return Html("".join(made))


def tag(name: str, /, *inside: Any, **attributes: Any) -> Html:
    """``<name attributes>inside</name>``. In attributes' names ``_`` stands for ``-``, a last one for nothing (``class_``);
    True is an attribute without a value, None and False are none."""
    written = [""]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            written.append(key)
        elif value is not None and value is not False:
            written.append(f'{key}="{html.escape(str(value))}"')
    start = f"<{name}{' '.join(written)}>"
    return Html(start if name in VOID else f"{start}{text(*inside)}</{name}>")


def data(value: Any, **attributes: Any) -> Html:
    """A value as JSON that a script reads and no parser takes for markup."""
    written = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    return tag("script", Html(written), type="application/json", **attributes)


# Values ---------------------------------------------------------------------------------------------------------------


def plain(value: float) -> str:
    """A number in a table: four digits, or all before the point."""
    return f"{value:,.0f}" if (value == int(value) or abs(value) >= 1000) and abs(value) < 1e12 else f"{value:.4g}"


def said(value: Any) -> str:
    """A recipe's value in a line: specs and dataclasses as calls."""
    if isinstance(value, Mapping):
        kind = value.get("@")
        inside = value.get("kwargs", {}) if kind == "Spec" else {k: v for k, v in value.items() if k != "@"}
        listed = ", ".join(f"{k}={said(v)}" for k, v in inside.items())
        name = value.get("name") if kind == "Spec" else kind or ""
        return f"{name}({listed})" if listed or kind != "Spec" else str(name)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(said, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(value: Any) -> Any:
    """A value of any kind in a cell."""
    if isinstance(value, Mapping):
        return pairs(value) if value else "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(shown(v)) if not isinstance(v, Mapping) else said(v) for v in value)
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return plain(value) if known else str(value)


def pairs(values: Mapping[str, Any], **attributes: Any) -> Html:
    """Names and values; what is None or empty is left out."""
    kept = {k: v for k, v in values.items() if v not in (None, "")}
    return tag("dl", [tag("div", tag("dt", k), tag("dd", shown(v))) for k, v in kept.items()], **attributes)


def rows(head: Sequence[str], body: Sequence[Sequence[Any]]) -> Html:
    """A table; the first cell of a line names it."""
    first = tag("tr", [tag("th", name, scope="col") for name in head])
    lines = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in body]
    return tag(
        "div",
        tag("table", tag("thead", first), tag("tbody", lines)),
        class_="scroll",
        tabindex=0,
        role="group",
        aria_label="Table",
    )
