"""Progress of a run: a bar on a terminal, plain lines in a pipe, JSON lines with --json."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.cli.output import echo, plain
from zoo.reports.values import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

WIDTH = 24  # characters of the bar in a notebook
LONG = 3600.0  # seconds; for a longer run a reduced setting is named
LINES = 10.0  # seconds between two plain lines


class Progress:
    """Called by the engine as ``progress(event, **facts)``.

    ``advice(device, seconds)``: a line for a run that takes long, or ''. ``minutes``: when the run stops early.
    """

    def __init__(
        self,
        as_json: bool = False,
        minutes: float | None = None,
        advice: Callable[[str, float], str] = lambda device, seconds: "",
    ):
        self.as_json, self.minutes, self.advice = as_json, minutes, advice
        self.device, self.last = "cpu", 0.0
        self.live = sys.stdout.isatty() or in_notebook()
        self.width = 0  # of the bar in a notebook
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __call__(self, event: str, **facts: Any) -> None:
        if self.as_json:
            echo(json.dumps({"event": event, **facts}, default=str))
            return
        handler = getattr(self, f"on_{event}", None)
        if handler is not None:
            handler(**facts)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if self.width:
            print("\r" + " " * self.width, end="\r", flush=True)
            self.width = 0

    def line(self, text: str, err: bool = False) -> None:
        """Print a line, above the bar if there is one."""
        if self.bar is not None:
            self.bar.console.print(plain(text), markup=False, highlight=False)
        else:
            if self.width:
                print("\r" + " " * self.width, end="\r")
                self.width = 0
            echo(text, err=err)

    # Events -----------------------------------------------------------------------------------------------------------

    def prepare(self, images: int, total: int, what: str) -> None:
        """Called by the preparation of a data set."""
        self("data", done=images, total=total, what=what)

    def on_data(self, done: int, total: int, what: str, **_: object) -> None:
        if self.live:
            self._show(done, total, what, "")
        elif time.monotonic() - self.last > LINES or done == 0:
            self.last = time.monotonic()
            self.line(f"{what}: {done:,} of {total:,}")

    def on_note(self, text: str, **_: object) -> None:
        self.line(text)

    def on_start(self, images: int, dataset: str, device: str, **facts: Any) -> None:
        self.close()
        self.device = device
        before = f", {facts['images_before']:,} of them done" if facts.get("images_before") else ""
        several = f" in {facts['processes']} processes" if facts.get("processes", 1) > 1 else ""
        self.line(f"training on {device}{several}: {images:,} images of {dataset}{before}")

    def on_rate(self, images_per_second: float, seconds_left: float, **_: object) -> None:
        stops = f"; the run stops after {self.minutes:g} minutes (--minutes)" if self.minutes else ""
        self.line(f"{images_per_second:,.1f} images/s: the whole budget takes about {duration(seconds_left)}{stops}")
        advice = self.advice(self.device, seconds_left)
        if advice:
            self.line(advice)

    def on_tick(self, images: int, total: int, images_per_second: float, seconds_left: float, **facts: Any) -> None:
        if self.minutes and images_per_second * seconds_left < total - images:  # --minutes ends it earlier
            total = images + round(images_per_second * seconds_left)
        logs = "  ".join(f"{k} {v:.4g}" for k, v in facts.get("logs", {}).items() if k.startswith("loss/"))
        if facts.get("scores"):
            self.line(f"{images:,} images: " + "  ".join(f"{k} {v:.4g}" for k, v in facts["scores"].items()))
        if self.live:
            self._show(images, total, f"{images_per_second:,.1f} images/s", f"{duration(seconds_left)} left  {logs}")
        elif time.monotonic() - self.last > LINES or images >= total:
            self.last = time.monotonic()
            self.line(
                f"{images:,} of {total:,} images  {images_per_second:,.1f}/s  {duration(seconds_left)} left  {logs}"
            )

    def on_grid(self, path: str, **_: object) -> None:
        self.line(f"samples: {path}")

    def on_warning(self, text: str, **_: object) -> None:
        self.line(f"zoo: warning: {text}", err=True)

    def on_done(self, path: str, images: int, seconds: float, stopped_by: str, use: list[str], **facts: Any) -> None:
        self.close()
        self.line(f"done: {images:,} images in {duration(seconds)} (stopped by: {stopped_by}); {path}")
        if facts.get("resume"):
            self.line(f"continue: {facts['resume']}")
        for command in use:
            self.line(f"next:  {command}")

    def _show(self, done: int, total: int, text: str, after: str) -> None:
        if not sys.stdout.isatty():  # a notebook: one line, written again
            full = round(WIDTH * min(1.0, done / max(total, 1)))
            line = f"{text} {'█' * full}{'░' * (WIDTH - full)} {done:,}/{total:,} {after}"
            print("\r" + line.ljust(self.width), end="", flush=True)
            self.width = max(self.width, len(line))
            return
        if self.bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[after]}", markup=False), transient=True)
            self.task = self.bar.add_task(plain(text), total=total, after=after)
            self.bar.start()
        assert self.task is not None
        self.bar.update(self.task, completed=done, total=total, description=plain(text), after=after)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and shell.has_trait("kernel")
