"""The page: a header, samples, curves, recipe, Card, machine, commands; style and script inside, nothing fetched.

Its content security policy names the hashes of its own style and script and allows images from data URIs alone, so that a
browser would refuse both a request and a script that came in with a name.
"""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

from zoo.files import beside
from zoo.reports import about
from zoo.reports.curves import charts, draw, readings
from zoo.reports.html import Html, data, pairs, plain, tag
from zoo.reports.reading import GRIDS, Run, read
from zoo.version import __version__

HERE = Path(__file__).parent
WARNINGS = 10  # of the log that are shown
WIDE = 640  # pixels to which a small grid is enlarged, by a whole factor


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page of the run in folder ``run`` and return its path, by default ``RUN/report.html``.

    The run may be finished, going on, or killed. ValueError where ``run`` is no run's folder or ``out`` is no .html file;
    OSError where the page can't be written.
    """
    path = Path(run) / "report.html" if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out='{path}': must end in .html")
    page = render(read(run))
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def render(run: Run) -> str:
    """The whole page."""
    style = Html((HERE / "page.css").read_text(encoding="utf-8"))
    script = Html((HERE / "page.js").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        f"base-uri 'none'; form-action 'none'"
    )
    sections = {
        "Samples": samples(run),
        **curves(run),
        "Recipe": about.recipe(run),
        "Card": about.card(run),
        "Machine": about.machine(run),
        "Commands": about.commands(run),
    }
    sections = {title: inside for title, inside in sections.items() if inside}
    links = [tag("a", title, href=f"#{anchor(title)}") for title in sections]
    made = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"zoo {__version__}"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{run.name}: report of a run"),
        tag("style", style),
    )
    body = tag(
        "body",
        header(run),
        tag("nav", links, aria_label="Parts of this page"),
        tag("main", [section(title, inside) for title, inside in sections.items()]),
        tag("footer", f"Made by zoo {__version__} on {made} from {run.path}. This page fetches nothing."),
        data(readings(run.log), id="readings"),
        tag("script", script),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def section(title: str, inside: Any) -> Html:
    return tag("section", tag("h2", title), inside, id=anchor(title))


# The run at a glance --------------------------------------------------------------------------------------------------


def header(run: Run) -> Html:
    seen, budget = run.seen, run.budget
    done = seen >= budget
    broken = "stopped by a value that is not finite"
    state = "finished" if done else broken if run.log.broken else "still training, or stopped"
    share = f"{seen:,} of {budget:,} real images ({seen / max(budget, 1):.0%}): {state}"
    bar = tag("progress", value=seen, max=max(budget, 1), aria_label="Part of the budget")
    told = [tag("p", share, class_="state"), bar]
    if run.written is not None and not done:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(run.written))
        told.append(tag("p", f"The log was last written at {at}.", class_="note"))
    tiles = {
        "data set": run.recipe.get("dataset"),
        "seed": run.facts.get("seed"),
        "rounds": run.log.last("round"),
        "training time": duration(run.log.last("seconds")),
        "images a second, at last": run.log.last("images_per_second"),
    }
    notices = [tag("li", text) for text in warnings(run)]
    torn = run.log.torn
    if torn:
        notices.append(tag("li", f"{torn} line{'s' * (torn > 1)} of log.jsonl could not be read (torn by a kill?)"))
    return tag(
        "header",
        tag("h1", run.name or run.path.name),
        told,
        pairs(tiles, class_="tiles"),
        tag("div", tag("h2", "Warnings"), tag("ul", notices), class_="warnings", role="note") if notices else None,
    )


def warnings(run: Run) -> list[str]:
    """What the log warns of, the last few if there are many, each with the images seen."""
    said = [text if plain(at) in text else f"after {plain(at)} images: {text}" for at, text in run.log.notices]
    more = len(said) - WARNINGS
    return [f"{more} earlier warnings are in log.jsonl", *said[-WARNINGS:]] if more > 0 else said


def duration(seconds: float | None) -> str | None:
    """1 h 02 min 03 s, without what is zero in front."""
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def samples(run: Run) -> Any:
    """The grids, all of them in the page; the script shows one at a time."""
    if not run.grids:
        broken = f" {run.broken} can't be read." if run.broken else ""
        return tag("p", f"No grid of samples yet.{broken}")
    told = []
    left = run.draw - run.broken - len(run.grids)
    if left:
        told.append(
            f"{left} of {run.draw} grids are left out, evenly (at most {GRIDS} stand here); samples/ has them all."
        )
    if run.broken:
        told.append(f"{run.broken} can't be read and {'are' if run.broken > 1 else 'is'} left out.")
    lossy = sum(not g.exact for g in run.grids)
    if lossy:
        told.append(f"{lossy} are compressed with loss to keep the page small; samples/ has them as drawn.")
    figures = []
    for grid in run.grids:
        before = (x for x in reversed(run.log.lines) if x["images"] <= grid.images and "seconds" in x)
        line = next(before, {})
        after = f"after {grid.images:,} real images"
        when = f", {duration(line['seconds'])} of training" if grid.images and line else ""
        stage = f", stage {int(line['stage']) + 1}" if len(run.recipe["stages"]) > 1 and line else ""
        width, high = grid.size
        times = max(1, WIDE // max(width, 1))
        image = tag(
            "img", src=grid.uri, width=width * times, height=high * times, class_="pixels" if times > 1 else None,
            alt=f"A grid of samples {after}",
        )  # fmt: skip
        caption = tag("figcaption", f"{after}{when}{stage}")
        figures.append(tag("figure", image, caption, class_="grid", data_images=grid.images))
    count = len(figures)
    controls = tag(
        "div",
        tag("label", "Grid", for_="slider"),
        tag("button", "\u2039", type="button", id="back", aria_label="The grid before"),
        tag("input", type="range", id="slider", min=1, max=count, value=count, step=1),
        tag("button", "\u203a", type="button", id="next", aria_label="The next grid"),
        tag("button", "Play", type="button", id="play", aria_pressed="false"),
        tag("output", f"{count} of {count}", id="where", for_="slider"),
        class_="controls",
        hidden=True,
    )
    return [tag("p", " ".join(told), class_="note") if told else None, controls if count > 1 else None, figures]


def curves(run: Run) -> dict[str, Any]:
    """The charts in their sections."""
    made = charts(run.log)
    if not made:
        return {"Losses": tag("p", "No line of the log yet.")}
    end = max([run.log.last("images") or 1, *(g.images for g in run.grids), 1])
    begun: dict[int, float] = {}
    for line in run.log.lines:
        begun.setdefault(int(line["stage"]), line["images"])
    stages = list(begun.values())[1:]
    parts: dict[str, list[Html]] = {}
    for i, chart in enumerate(made):
        key = chart.curves[0].key
        part = "Scores" if chart.dots else "Losses" if key.startswith("loss/") else "Also logged"
        parts.setdefault(part, []).append(draw(chart, end, stages, i))
    across = "Across: real images seen."
    if stages:
        across += f" Dashed: the start of stage {', '.join(str(s + 1) for s in list(begun)[1:])}."
    lower = {"Scores": " Distances (fd, fid, kid) are better when lower."}
    return {
        part: [tag("p", across + lower.get(part, ""), class_="note"), tag("div", inside, class_="charts")]
        for part, inside in parts.items()
    }
