"""How the code and the docs read: field terms and plain English, instead of words that only this project would use."""

import ast
import builtins
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted(p for folder in ("zoo", "recipes", "benchmarks", "tests") for p in (ROOT / folder).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
SKIP = {Path(__file__).resolve(), ROOT / "CHANGELOG.md"}

# Parts of names. Participles say that something happened to a thing, not what it is.
IDENTIFIERS = {
    "said",
    "held",
    "made",
    "found",
    "told",
    "seen",
    "kept",
    "shown",
    "drawn",
    "lent",
    "begun",
    "worn",
    "meant",
    "asked",
    "looked",
    "judged",
    "accused",
    "unworthy",
    "misnamed",
    "departure",
    "departures",
    "rehearse",
    "rehearsed",
    "leavings",
    "desk",
    "shadow",
    "shadows",
    "subject",
    "subjects",
    "adopt",
    "adopts",
    "adopted",
    "ahead",
    "imitate",
    "ruler",
    "rulers",
    "ramp",
    "ramps",
    "settle",
    "settled",
    "optimiser",
    "optimisers",
    "initialise",
    "normalise",
    "dequantise",
    "colour",
    "grey",
    "centre",
    "licence",
    "labelled",
    "unlabelled",
    "recognise",
    "neighbour",
    "neighbours",
}

# Names of Python, torch and other libraries.
FOREIGN = {
    "EntryNotFoundError",
    "LocalEntryNotFoundError",
    "RepositoryNotFoundError",
    "found_inf",
    *(name for name in dir(builtins) if name.endswith("Error")),
}

# Words in docstrings, comments, messages and pages. In parentheses: what the field says.
PHRASES = [
    r"\brulers?\b",  # (feature network)
    r"\baccus\w+",  # (flagged)
    r"\bunworthy\b",  # (worse than a baseline)
    r"\bmisnamed\b",
    r"\b[Dd]epartures?\b",  # (differences from the paper)
    r"\b[Rr]ehears\w+",  # (dry run)
    r"\bat rest\b",  # (frozen, in eval mode)
    r"\b(?:its|their|a|the) say\b",
    r"\bleavings\b",
    r"\bhears? of\b",
    r"\b(?:see|seen) to learn\b",  # (training results)
    r"\b(?:Value|Type|Runtime|Index|Key|OS)Error where\b",  # (Raises ValueError if)
    r"\bwhere (?:it|there|they|that|this|the|a|an|one|no|none|any|some|its|each|both) "
    r"(?:is|are|was|were|has|have|can|cannot|does|do)\b",  # (if, when)
    r"[:,;] where\b",
    r"^Where\b",
    r"\bsave (?:for|that|where|in|the)\b",  # (except)
    r"\bbut for the\b",
    r"\b\w*(?:optimis|initialis|normalis|quantis|recognis|regularis|penalis|standardis)"
    r"(?:e|ed|es|ing|er|ers|ation)\b",
    r"\b\w*[Cc]olour\w*",
    r"\b[Gg]rey\b",
    r"\b[Cc]entre[sd]?\b",
    r"\b[Ll]icences?\b",
    r"\b\w*labelled\b",
    r"\b[Nn]eighbours?\b",
]


def names(tree: ast.AST) -> set[str]:
    """Every identifier of a module that is defined or used in it."""
    result: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            result.add(node.id)
        elif isinstance(node, ast.Attribute):
            result.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            result.add(node.name)
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            result.add(node.arg)
        elif isinstance(node, ast.alias):
            result.add((node.asname or node.name).rpartition(".")[2])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            result.add(node.name)
    return result


def parts(name: str) -> list[str]:
    """``ImageSource`` and ``image_source`` -> image, source."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def bad_names(source: str) -> set[str]:
    return {n for n in names(ast.parse(source)) - FOREIGN if set(parts(n)) & IDENTIFIERS}


def prose(path: Path) -> list[tuple[int, str]]:
    """The lines of a page, or the lines of a module's docstrings, strings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return list(enumerate(text.splitlines(), 1))
    result = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            lines = token.string.splitlines()
            result += [(token.start[0] + i, line.lstrip("frbFRB").strip("\"'# ")) for i, line in enumerate(lines)]
    return result


def bad_phrases(lines: list[tuple[int, str]]) -> list[str]:
    return [f"{number}: {line.strip()}" for number, line in lines if any(re.search(p, line) for p in PHRASES)]


@pytest.mark.parametrize("path", [p for p in CODE if p not in SKIP], ids=lambda p: str(p.relative_to(ROOT)))
def test_identifiers(path):
    assert not bad_names(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [p for p in [*CODE, *PAGES] if p not in SKIP], ids=lambda p: str(p.relative_to(ROOT)))
def test_phrases(path):
    found = bad_phrases(prose(path))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [p for p in CODE if p.is_relative_to(ROOT)], ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_within_120_columns(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [i for i, line in enumerate(lines, 1) if len(line) > 120]


def test_these_tests_can_fail(tmp_path):
    assert bad_names("def f(images_seen, x):\n    made = x\n    return x.was_found\n") == {
        "images_seen",
        "made",
        "was_found",
    }
    assert not bad_names("raise FileNotFoundError\noptimizer.found_inf = rampup")
    file = tmp_path / "x.py"
    file.write_text(
        '"""ValueError where there is none."""\nx = 1  # the ruler\nwhere = f"{x}: not found, held-out images seen"\n'
    )
    assert [line.partition(":")[0] for line in bad_phrases(prose(file))] == ["1", "2"]


def report() -> dict[str, int]:
    """How many names and lines of each folder break the rules."""
    counts: dict[str, int] = defaultdict(int)
    for path in (p for p in CODE if p not in SKIP):
        counts[str(path.relative_to(ROOT).parent)] += len(bad_names(path.read_text(encoding="utf-8")))
    for path in (p for p in [*CODE, *PAGES] if p not in SKIP):
        counts[str(path.relative_to(ROOT).parent)] += len(bad_phrases(prose(path)))
    return dict(counts)
