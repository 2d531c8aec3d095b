"""``--log tensorboard``: the curves, scores and grids of a run for TensorBoard, in the run's folder ``tensorboard``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
KINDS = ("tensorboard",)


class Board:
    """Listens to the events of a run, as ``progress(event, **facts)``, and writes them; steps are real images.

    Raises ValueError if the package is missing.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            hint = 'pip install ".[board]" in the folder of the zoo'
            raise ValueError(f"--log tensorboard: needs the package tensorboard ({hint})") from None
        self.new_writer = SummaryWriter
        self.folder: Path | None = None
        self.writer: Any = None

    def __call__(self, event: str, **facts: Any) -> None:
        if event == "checkpoint":
            self.folder = Path(facts["path"]).parent
        elif event == "grid":
            path = Path(facts["path"])
            self.folder = path.parent.parent
            self.put_grid(path)
        elif event == "tick":
            scalars = {**facts["logs"], **{f"score/{name}": value for name, value in facts["scores"].items()}}
            scalars["images_per_second"] = facts["images_per_second"]
            for name, value in scalars.items():
                self.open(facts["images"]).add_scalar(name, value, facts["images"])
        elif event == "warning":
            self.open(0).add_text("warning", facts["text"])
        elif event == "done" and self.writer is not None:
            self.writer.close()

    def open(self, images: int) -> Any:
        """The writer. What an earlier process wrote after ``images`` is dropped."""
        if self.writer is None:
            assert self.folder is not None, "a run writes a checkpoint before anything else"
            self.writer = self.new_writer(str(self.folder / FOLDER), purge_step=images or None)
        return self.writer

    def put_grid(self, path: Path) -> None:
        """A grid of samples; its name is the number of real images."""
        import numpy as np

        from zoo.data.images import open_picture

        images = int(path.stem)
        with open_picture(path) as image:
            self.open(images).add_image("samples", np.asarray(image.convert("RGB")), images, dataformats="HWC")


def listen(progress: Callable[..., None] | None, log: str | None) -> Callable[..., None] | None:
    """``progress``, and a :class:`Board` if ``log`` is ``tensorboard``. Raises ValueError for another ``log``."""
    if not log:
        return progress
    if log not in KINDS:
        raise ValueError(f"log='{log}': must be {' or '.join(KINDS)}")
    board = Board()

    def both(event: str, **facts: Any) -> None:
        if progress is not None:
            progress(event, **facts)
        board(event, **facts)

    return both
