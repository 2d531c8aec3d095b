"""How a folder of images is arranged: splits, classes, domains and pairs, read off the names of its folders.

Read in this order:

- ``trainA``, ``trainB``, ``testA``, ... (CycleGAN): splits of the domains A and B;
- ``A/train``, ``B/train``, ... (pix2pix before its pictures are joined): the same;
- ``train``, ``val``, ``test``, in any case and with the usual other names: splits, each arranged as below;
- folders: classes, in natural order, which are also domains; if they are ``a`` and ``b`` with equal file names, pairs;
- pictures that are all twice as wide as high: pairs, the left half is a, the right half b.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.data.files import File, listed, natural

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
DOMAINS = ("a", "b")
SPLIT_OF_DOMAIN = re.compile(rf"({'|'.join(SPLITS)})[ _-]?([ab])", re.IGNORECASE)


@dataclass
class Item:
    """One image of a data set. ``rest``: its path inside its split (and domain). ``class_name``: of its folder.
    ``half``: 0 or 1 of a picture of two. ``values``: of fields from a table."""

    file: File
    rest: str
    class_name: str | None = None
    half: int | None = None
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Layout:
    """``splits``: the items of each split, of pairs a and b in turn. ``classes``: the names of the class folders, which
    are domains too. ``paired``: whether rows come in pairs. ``form``: how it was read, in words."""

    splits: dict[str, list[Item]]
    classes: tuple[str, ...] = ()
    paired: bool = False
    form: str = ""
    notes: list[str] = field(default_factory=list)


def arrange(name: str, files: Sequence[File], empty: Sequence[str], *, splits: bool = True) -> Layout:
    """The splits and classes of ``files``. ``empty``: folders without files. ``splits``: whether folders named like
    splits are splits. Raises ValueError, for a data set ``name``, for folders that fit no layout."""
    tops = dict.fromkeys([f.folders[0] for f in files if f.folders] + [e.split("/")[0] for e in empty])
    loose = [f.name for f in files if not f.folders]
    of_domains = {top: match for top in tops if (match := SPLIT_OF_DOMAIN.fullmatch(top))} if splits else {}
    of_splits = {top: SPLITS[top.casefold()] for top in tops if top.casefold() in SPLITS} if splits else {}
    if of_domains:
        missing = set(DOMAINS) - {match[2].casefold() for match in of_domains.values()}
        if missing:
            raise ValueError(f"{name}: {listed([*of_domains])} are one of two domains, but there is no folder of "
                             f"{missing.pop().upper()}; add it, or read them as classes: {name}?splits=no")  # fmt: skip
        check_rest(name, [*of_domains], [*(t for t in tops if t not in of_domains), *loose], "splits of domains")
        check_twice(name, {t: f"{SPLITS[m[1].casefold()]} {m[2].casefold()}" for t, m in of_domains.items()})
        return _of_domains(
            [(SPLITS[of_domains[f.folders[0]][1].casefold()], of_domains[f.folders[0]][2], f) for f in files], 1
        )
    inner = {f.folders[1].casefold() for f in files if len(f.folders) > 1}
    flat = all(len(f.folders) > 1 for f in files)
    if splits and {t.casefold() for t in tops} == set(DOMAINS) and flat and inner and inner <= set(SPLITS):
        return _of_domains([(SPLITS[f.folders[1].casefold()], f.folders[0], f) for f in files], 2)
    if of_splits:
        check_rest(name, [*of_splits], [*(t for t in tops if t not in of_splits), *loose], "splits")
        check_twice(name, of_splits)
        items: dict[str, list[Item]] = {split: [] for split in ("train", "val", "test") if split in of_splits.values()}
        for file in files:
            items[of_splits[file.folders[0]]].append(Item(file, "/".join(file.name.split("/")[1:])))
        return _with_classes(Layout({s: i for s, i in items.items() if i}))
    return _with_classes(Layout({"train": [Item(file, file.name) for file in files]}))


def check_rest(name: str, chosen: Sequence[str], rest: Sequence[str], what: str) -> None:
    """Raises ValueError if something is left over."""
    if rest:
        raise ValueError(f"{name}: {listed([*chosen])} are {what}, but {listed([*rest])} is left over; move it into "
                         f"one of them or out of the folder, or read all as classes with {name}?splits=no")  # fmt: skip


def check_twice(name: str, meaning: Mapping[str, str]) -> None:
    """Raises ValueError if two folders have the same meaning."""
    for top, value in meaning.items():
        same = [t for t, v in meaning.items() if v == value]
        if len(same) > 1:
            raise ValueError(f"{name}: the folders {' and '.join(same)} both mean {value}; rename one, got {top}")


def _of_domains(parts: Sequence[tuple[str, str, File]], depth: int) -> Layout:
    """From (split, domain, file); ``depth``: folders that say so."""
    names = dict(sorted({d.casefold(): d for _, d, _ in parts}.items()))
    items: dict[str, list[Item]] = {
        split: [] for split in ("train", "val", "test") if any(split == p[0] for p in parts)
    }
    for split, domain, file in parts:
        rest = "/".join(file.name.split("/")[depth:])
        items[split].append(Item(file, rest, names[domain.casefold()]))
    for rows in items.values():
        rows.sort(key=lambda item: natural(item.class_name or ""))
    return Layout(items, tuple(names.values()))


def _with_classes(layout: Layout) -> Layout:
    """The same, with the first folders of each path as classes, if each image is in one."""
    items = [item for rows in layout.splits.values() for item in rows]
    outside = [item for item in items if "/" not in item.rest]
    if outside:
        if len(outside) < len(items):
            layout.notes.append(f"folders are no classes, since {len(outside)} images lie outside of them")
        return layout
    for item in items:
        item.class_name, _, item.rest = item.rest.partition("/")
    layout.classes = tuple(sorted({str(item.class_name) for item in items}, key=natural))
    return layout


def pair_folders(name: str, layout: Layout, required: bool) -> bool:
    """Order the rows of two class folders with equal names as pairs; whether they are. ``required``: the user says that
    they are. Raises ValueError if only some names are equal."""
    if len(layout.classes) != 2 or not (required or {c.casefold() for c in layout.classes} == set(DOMAINS)):
        return False
    pairs: dict[str, list[Item]] = {}
    for split, items in layout.splits.items():
        sides = [{_stem(i.rest): i for i in items if i.class_name == c} for c in layout.classes]
        common = sides[0].keys() & sides[1].keys()
        alone = sorted((sides[0].keys() ^ sides[1].keys()), key=natural)
        if len(sides[0]) + len(sides[1]) < len(items):
            alone.append("names that differ in their suffix only")
        if alone and (required or len(common) >= len(alone)):
            raise ValueError(f"{name}: {' and '.join(layout.classes)} have {len(common)} equal names in {split}, but "
                             f"{listed(alone)} has no pair; complete the pairs, or read the two as separate domains "
                             f"with {name}?pairs=no")  # fmt: skip
        if alone:
            return False
        pairs[split] = [side[stem] for stem in sorted(common, key=natural) for side in sides]
    layout.splits, layout.paired = pairs, True
    layout.form = f"{' and '.join(layout.classes)} are pairs, by their equal names (?pairs=no: they are not)"
    return True


def _stem(path: str) -> str:
    folder, slash, base = path.rpartition("/")
    return f"{folder}{slash}{base.rpartition('.')[0]}"


def split_halves(layout: Layout) -> None:
    """Each picture becomes two rows, its left half and its right half."""
    for split, items in layout.splits.items():
        layout.splits[split] = [Item(i.file, i.rest, i.class_name, half) for i in items for half in (0, 1)]
    layout.paired = True
    layout.form = (
        "each picture is twice as wide as high: its left half is a, its right half b, a pair (?pairs=no: one image)"
    )
