"""``.pth`` files of torch: a pickle, of which only tensors are read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, on the CPU. Raises ValueError if there is anything else in the file."""
    try:
        mmap = zipfile.is_zipfile(path)  # files from before torch 1.6 have no zip format
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"no file of tensors ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError("no state dict: must be tensors by name")
    return {str(name): tensor for name, tensor in content.items()}
