"""The header of a feature network's file. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEY = "feature_network"  # the one entry of the safetensors header's metadata


def read_header(path: Path) -> dict[str, Any]:
    """``{"network": {"name", "kwargs"}, "facts": {...}}``. Raises ValueError if the file is damaged or not a
    feature network."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads((file.metadata() or {})[KEY])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        message = "no feature network in its header" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"feature network '{path}': damaged or not a feature network of the zoo ({message})") from None
