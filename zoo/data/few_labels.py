"""Data of which most rows have lost their label: what semi-supervised papers train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.data.store import ImageData

if TYPE_CHECKING:
    import torch

    from zoo.data.loader import Feed, Loader, Where


class FewLabels(ImageData):
    """Data in which a share of each class keeps its label ``y``; the other rows have -1.

    Args:
        data: with labels and access by index.
        share: of the rows of a class, in (0, 1]; at least one row of each keeps its label.
        seed: of the choice.

    Raises ValueError if the data have no labels.
    """

    def __init__(self, data: ImageData, share: float, seed: int):
        import torch

        if "y" not in data.facts.keys:
            raise ValueError(f"labeled={share}: {data.facts.name} has no labels")
        y = data.labels("y").long()
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        self.y = torch.full_like(y, -1)
        for c in (c for c in y.unique().tolist() if c >= 0):
            rows = order[y[order] == c]
            self.y[rows[: max(1, round(share * len(rows)))]] = c
        stored = {**data.stored, "y": self.y} if data.stored else {}
        blocks = {key: value for key, value in data.blocks.items() if key != "y"}
        super().__init__(data.facts, stored, data.hash, data.path, data.texts, blocks)
        self.data, self.share = data, share

    def __len__(self) -> int:
        return len(self.data)

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """As in ImageData."""
        return {**self.data.rows(indices), "y": self.y.index_select(0, indices)}

    def read(self, indices: torch.Tensor, start: int, loader: Loader) -> dict[str, Any]:
        """As in ImageData."""
        return {**self.data.read(indices, start, loader), "y": self.y.index_select(0, indices)}

    def labels(self, key: str) -> torch.Tensor:
        """As in ImageData."""
        return self.y if key == "y" else self.data.labels(key)

    def feed(self, loader: Loader, where: Where | None, part: tuple[int, int], workers: int) -> Feed | None:
        """As in ImageData. Raises ValueError for data that are read as they stream."""
        if self.data.feed(loader, where, part, workers) is not None:
            raise ValueError(f"{self.facts.name} is read as it streams: labeled={self.share} can't hide its labels")
        return None
