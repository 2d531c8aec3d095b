"""Recipe files of the user's own, which may define networks, games and losses: which of them may run again.

``zoo train FILE.py`` runs FILE, and notes its SHA-256 and its path in ``$ZOO_HOME/code``. A run's folder and its
weights have the hash alone. Resuming or loading them runs the file that was noted under this hash, if its present
content was noted too: this user ran it himself. So a folder or a file that somebody else made never starts code of its
own, whatever is in it. Otherwise the file has to be given: ``--code FILE``, in Python ``code=``.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from zoo import settings
from zoo.data.store import home
from zoo.files import beside, sha256

HINT = "if a recipe file of yours registers it, add --code FILE (in Python code=FILE)"


@dataclass(frozen=True)
class Code:
    """A recipe file that this user runs: its path, and the SHA-256 of its content."""

    path: Path
    hash: str

    @classmethod
    def of(cls, model: str) -> Code | None:
        """The recipe file that ``model`` is the path of; None for a name."""
        path = Path(model)
        return cls(path.resolve(), sha256(path)) if model.endswith(".py") and path.is_file() else None

    def remember(self) -> None:
        """Note that this user has run the file."""
        path = _note(self.hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            partial.write_text(json.dumps({"path": str(self.path)}))


def run(path: str | Path) -> None:
    """Run a recipe file that the user has named, and note it. Raises ValueError as :func:`zoo.settings.load_file`."""
    settings.load_file(path)
    Code(Path(path).resolve(), sha256(path)).remember()


def recall(hash: object) -> str:
    """Run the file that was noted under ``hash``, unless this process has imported it. Returns '', or why not."""
    if hash is None:
        return ""
    if not isinstance(hash, str) or not re.fullmatch("[0-9a-f]{64}", hash) or not _note(hash).is_file():
        return "the recipe file that it was trained with has not been run here"
    try:
        path = Path(json.loads(_note(hash).read_text())["path"])
    except (ValueError, KeyError, TypeError):
        return f"{_note(hash)} is damaged"
    if _imported(path):
        return ""
    if not path.is_file():
        return f"its recipe file {path} is gone"
    if not _note(sha256(path)).is_file():
        return f"its recipe file {path} has changed since you ran it"
    settings.load_file(path)
    return ""


def explain(error: ValueError, reason: str) -> ValueError:
    """The error, and if a part of a model or a recipe is unknown, how to give the file that registers it. ``reason``:
    of :func:`recall`."""
    if not re.search(r"(^|: )(unknown|model spec: unknown) ", str(error)):
        return error
    because = f" ({reason})" if reason else ""
    return ValueError(f"{error}{because}; {HINT}")


def _note(hash: str) -> Path:
    return home() / "code" / f"{hash}.json"


def _imported(path: Path) -> bool:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return any(file and Path(file).name == path.name and Path(file).resolve() == path for file in files)
