"""The page: a header, samples, curves, recipe, Card, machine, commands, from ``templates/page.html``; nothing is
loaded.

Jinja2 escapes every value. The content security policy has the hashes of the page's own style and script and allows
images from data URIs only, so that a browser refuses requests and other scripts.
"""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from zoo.files import Json, beside, check_place
from zoo.reports import about
from zoo.reports.curves import HEIGHT, Figure, charts, figure, readings
from zoo.reports.reading import GRIDS, Grid, Run, read
from zoo.reports.values import cell_text, duration, number_text
from zoo.version import __version__

HERE = Path(__file__).parent
WARNINGS = 10  # of the log, at most
WIDTH = 640  # pixels to which a small grid is enlarged, by an integer factor


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page of the run in folder ``run`` and return its path, by default
    ``RUN/report.html``.

    The run may be finished, still training, or killed. Raises ValueError if ``run`` is not the folder of a run or
    ``out`` is not an .html file; OSError if the page cannot be written.
    """
    path = Path(run) / "report.html" if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out='{path}': must end in .html")
    page = render(read(run))
    check_place(path, f"--out {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def render(run: Run) -> str:
    """The whole page."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        f"base-uri 'none'; form-action 'none'"
    )
    parts = curves(run)
    titles = ["Samples", *(part.title for part in parts), "Recipe", "Card", "Machine", "Commands"]
    return (
        environment()
        .get_template("page.html")
        .render(
            version=__version__,
            date=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            policy=policy,
            style=style,
            script=script,
            run=run,
            titles=titles,
            header=header(run),
            samples=samples(run),
            curves=parts,
            height=HEIGHT,
            recipe=about.recipe(run),
            card=about.card(run),
            machines=about.machines(run),
            runtime=about.runtime(run),
            commands=about.commands(run),
            readings=readings(run.log),
        )
    )


def environment() -> jinja2.Environment:
    """The templates and the filters that they use."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    result.filters.update(anchor=anchor, cell=cell_text, number=number_text)
    result.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return result


def digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def header(run: Run) -> Json:
    """State, warnings and main facts of the run."""
    finished = run.images >= run.budget
    stopped = "stopped by a value that is not finite" if run.log.diverged else "still training, or stopped"
    share = f"{run.images:,} of {run.budget:,} real images ({run.images / max(run.budget, 1):.0%})"
    modified = None
    if run.modified is not None and not finished:
        modified = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(run.modified))
    seconds = run.log.last("seconds")
    lines = run.log.unreadable
    damage = [f"{lines} line{'s' * (lines > 1)} of log.jsonl could not be read (incomplete after a kill?)"]
    return {
        "state": f"{share}: {'finished' if finished else stopped}",
        "modified": modified,
        "facts": {
            "data set": run.recipe.get("dataset"),
            "seed": run.facts.get("seed"),
            "rounds": run.log.last("round"),
            "training time": None if seconds is None else duration(seconds),
            "images a second, at last": run.log.last("images_per_second"),
        },
        "warnings": warnings(run) + damage * (lines > 0),
    }


def warnings(run: Run) -> list[str]:
    """The last warnings of the log, each with the images seen."""
    texts = []
    for images, text in run.log.notices:
        when = f"after {number_text(images)} images"
        texts.append(text if when in text else f"{when}: {text}")
    earlier = len(texts) - WARNINGS
    return [f"{earlier} earlier warnings are in log.jsonl", *texts[-WARNINGS:]] if earlier > 0 else texts


def samples(run: Run) -> Json:
    """The grids, all of them in the page; the script shows one at a time. ``note``: which are left out or
    compressed."""
    if not run.grids:
        unreadable = f" {run.unreadable} can't be read." if run.unreadable else ""
        return {"note": f"No grid of samples yet.{unreadable}", "figures": []}
    notes = []
    omitted = run.grid_count - run.unreadable - len(run.grids)
    if omitted:
        rule = f"evenly (at most {GRIDS} are in this page)"
        notes.append(f"{omitted} of {run.grid_count} grids are left out, {rule}; samples/ has them all.")
    if run.unreadable:
        notes.append(f"{run.unreadable} can't be read and {'are' if run.unreadable > 1 else 'is'} left out.")
    lossy = sum(not g.exact for g in run.grids)
    if lossy:
        notes.append(f"{lossy} are compressed with loss to keep the page small; samples/ has the exact ones.")
    return {"note": " ".join(notes), "figures": [grid_figure(run, grid) for grid in run.grids]}


def grid_figure(run: Run, grid: Grid) -> Json:
    """A grid with its size in the page and its caption."""
    lines = (x for x in reversed(run.log.lines) if x["images"] <= grid.images and "seconds" in x)
    line = next(lines, None)
    after = f"after {grid.images:,} real images"
    training_time = f", {duration(line['seconds'])} of training" if grid.images and line else ""
    stage = f", stage {int(line['stage']) + 1}" if len(run.recipe["stages"]) > 1 and line else ""
    width, height = grid.size
    factor = max(1, WIDTH // max(width, 1))
    return {
        "images": grid.images,
        "uri": grid.uri,
        "width": width * factor,
        "height": height * factor,
        "enlarged": factor > 1,
        "after": after,
        "caption": f"{after}{training_time}{stage}",
    }


@dataclass
class Part:
    """A section of charts, each with its number on the page. ``end``: images at the right edge."""

    title: str
    note: str
    end: float
    figures: list[tuple[int, Figure]]


def curves(run: Run) -> list[Part]:
    """The charts in their sections."""
    end = max([run.log.last("images") or 1, *(g.images for g in run.grids), 1])
    starts: dict[int, float] = {}
    for line in run.log.lines:
        starts.setdefault(int(line["stage"]), line["images"])
    note = "x axis: real images seen."
    if len(starts) > 1:
        note += f" Dashed: the start of stage {', '.join(str(stage + 1) for stage in list(starts)[1:])}."
    parts: dict[str, Part] = {}
    for number, chart in enumerate(charts(run.log)):
        key = chart.curves[0].key
        title = "Scores" if chart.dots else "Losses" if key.startswith("loss/") else "Also logged"
        more = " Distances (fd, fid, kid) are better when lower." if title == "Scores" else ""
        part = parts.setdefault(title, Part(title, note + more, end, []))
        part.figures.append((number, figure(chart, end, list(starts.values())[1:])))
    return list(parts.values()) or [Part("Losses", "No line of the log yet.", end, [])]
