"""The files of a user's folder or zip archive: its images, its tables, and what is neither. Needs no torch."""

from __future__ import annotations

import functools
import io
import lzma
import os
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from zoo.data.images import SUFFIXES

TABLES = {".csv", ".tsv", ".json", ".jsonl"}
CAPTIONS = ".txt"
MAX_IMAGE_BYTES = 256 << 20  # of a file in an archive, unpacked: a few kilobytes can become gigabytes
MAX_TABLE_BYTES = 128 << 20  # of a file in an archive that is no image
PIECE_BYTES = 4096  # of a packed file that are unpacked at once: zipfile limits only what deflate makes of them
SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # what operating systems leave in folders and archives


def natural(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """The key of the natural order: 2 before 10, without regard to case unless texts are equal otherwise."""
    parts = re.findall(r"\d+|\D+", text)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts], text


@dataclass(frozen=True)
class File:
    """A file in a folder or an archive. ``name``: its path inside, with slashes. ``path``: of the file, or of the
    archive. ``member``: the name in the archive, '' for a file of its own."""

    name: str
    path: Path
    member: str = ""

    def read(self) -> bytes:
        """Its content. Raises OSError; of a file in an archive also if it is too large, before it is unpacked."""
        if not self.member:
            return self.path.read_bytes()
        archive = open_archive(self.path, _time(self.path))
        try:
            size = archive.getinfo(self.member).file_size
        except KeyError:
            raise OSError(f"{self.path.name}: no member {self.member}") from None
        check_member(self.path.name, self.member, size)
        try:
            with archive.open(self.member) as member:
                return b"".join(iter(functools.partial(member.read, PIECE_BYTES), b""))
        except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise OSError(str(error) or "cut short") from error  # damaged, encrypted, unknown method

    def open(self) -> Path | io.BytesIO:
        """What reads its content piece by piece. Raises OSError."""
        return io.BytesIO(self.read()) if self.member else self.path

    def stamp(self) -> str:
        """What changes if its content does: size and time; of a file in an archive those of the archive."""
        if self.member:
            return f"{self.name} {_time(self.path)}"
        stat = self.path.stat()
        return f"{self.name} {stat.st_size} {stat.st_mtime_ns}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def stem(self) -> str:
        """The name without its suffix, folders included."""
        return self.name[: len(self.name) - len(self.suffix)]

    @property
    def folders(self) -> tuple[str, ...]:
        return PurePosixPath(self.name).parts[:-1]

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)


def check_member(archive: str, member: str, size: int) -> None:
    """Raises OSError if a file in an archive is too large, ``size`` bytes unpacked, to be read into memory."""
    limit = MAX_IMAGE_BYTES if PurePosixPath(member).suffix.lower() in SUFFIXES else MAX_TABLE_BYTES
    if size > limit:
        raise OSError(f"{archive}: {member} has {size:,} bytes unpacked; must have at most {limit:,} in an archive")


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


@functools.lru_cache(maxsize=4)
def open_archive(path: Path, time_ns: int) -> zipfile.ZipFile:
    """An archive, which stays open. ``time_ns``: when it was written, so that a new one is opened again."""
    return zipfile.ZipFile(path)


@dataclass
class Contents:
    """What a folder or an archive has, each in natural order.

    ``images``, ``tables`` (CSV, JSON), ``texts`` (.txt); ``others``: names of files that are none of these;
    ``problems``: names of what cannot be read, each with the reason; ``empty``: folders without any file in or under
    them; ``notes``: what else is to be told.
    """

    images: list[File] = field(default_factory=list)
    tables: list[File] = field(default_factory=list)
    texts: list[File] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, file: File) -> None:
        if file.suffix in SUFFIXES:
            self.images.append(file)
        elif file.suffix in TABLES:
            self.tables.append(file)
        elif file.suffix == CAPTIONS:
            self.texts.append(file)
        else:
            self.others.append(file.name)

    def sort(self) -> Contents:
        for files in (self.images, self.tables, self.texts):
            files.sort(key=lambda file: natural(file.name))
        self.others.sort(key=natural)
        return self


def contents(root: Path) -> Contents:
    """The contents of a folder (links are followed, each folder is read once) or of a zip archive. A table beside an
    archive belongs to it. Raises ValueError if there is no such folder, or it cannot be read."""
    if root.is_dir():
        return _walk(root)
    if root.suffix.lower() == ".zip" and root.is_file():
        return _members(root)
    raise ValueError(f"folder:{root}: there is no such folder")


def hidden(name: str) -> bool:
    return any(part.startswith(".") or part in SYSTEM for part in PurePosixPath(name).parts)


def outside(name: str) -> bool:
    """Whether a member's name leads out of the folder that an archive is unpacked into, here or on other systems."""
    return any(path.is_absolute() or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def _walk(root: Path) -> Contents:
    result, read = Contents(), set()
    folders, links = deque([(root, "")]), deque[tuple[Path, str]]()
    while folders or links:  # links last, so that a folder is read in its own place
        folder, name = folders.popleft() if folders else links.popleft()
        try:
            stat = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
        except OSError as error:
            if folder == root:
                raise ValueError(f"folder:{root}: {error.strerror}") from None
            result.problems.append(f"{name} ({error.strerror})")
            continue
        if (stat.st_dev, stat.st_ino) in read:
            result.notes.append(f"{name} is a link to a folder that is read already")
            continue
        read.add((stat.st_dev, stat.st_ino))
        entries = [entry for entry in entries if not hidden(entry.name)]
        if not entries and name:
            result.empty.append(name)
        for entry in entries:
            inside = f"{name}/{entry.name}" if name else entry.name
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append((folder / entry.name, inside))
            elif problem := _problem(entry):
                known = Path(entry.name).suffix.lower() in {*SUFFIXES, *TABLES, CAPTIONS, ""}
                (result.problems if known else result.others).append(f"{inside} ({problem})")
            else:
                result.add(File(inside, folder / entry.name))
    return result.sort()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _problem(entry: os.DirEntry[str]) -> str:
    """Why an entry is no file that can be read, '' if it is one."""
    try:
        if entry.is_file():
            return ""
    except OSError as error:
        return error.strerror or "cannot be read"
    if entry.is_symlink() and not Path(entry.path).exists():
        return "a link to nothing"
    return "a named pipe" if Path(entry.path).is_fifo() else "not a file"


def _members(archive: Path) -> Contents:
    result = Contents()
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"folder:{archive}: not a readable zip archive ({error})") from None
    for name in names:
        if outside(name):
            result.problems.append(f"{name} (a path out of the archive)")
        elif not hidden(name):
            result.add(File(name, archive, name))
    for file in _beside(archive):
        result.add(file)
    return result.sort()


def _beside(archive: Path) -> Iterator[File]:
    """The tables in the folder of an archive."""
    for path in sorted(archive.parent.iterdir()):
        if path.suffix.lower() in TABLES and path.is_file() and not hidden(path.name):
            yield File(path.name, path)


def counts(names: list[str]) -> str:
    """Names of files as counts of their suffixes: ``3 .md, 1 without a suffix``."""
    suffixes = [PurePosixPath(name.split(" (")[0]).suffix.lower() or "without a suffix" for name in names]
    return ", ".join(f"{suffixes.count(s)} {s}" for s in dict.fromkeys(suffixes))


def listed(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
