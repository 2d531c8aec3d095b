"""Atomic files (written next to their target, flushed to the disk, renamed over it), locks, names of files, hashes. No
torch here."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]  # a JSON object

PARTIAL = ".partial"  # the ending of a writer's own folder
LOCK = ".lock"  # the file in a run's folder that the process which trains it has locked
_NAME = re.compile(r"\w[\w.+-]{0,199}")


class NoSpace(OSError):
    """The disk is full: not a user's mistake, and no reason to try another source."""


# Names ----------------------------------------------------------------------------------------------------------------


def check_name(name: object, what: str) -> str:
    """The same name. Raises ValueError unless it is one plain file name, which no folder can be left with: letters,
    digits and ``_ - + .``, not a dot first. ``what``: the option or the file that it comes from."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{what}{str(name)[:200]!r}: must be one plain file name (letters, digits, _ - + .)")
    return name


# Locks ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(path: str | Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``, which has this process's number in it and is removed at the end. The lock of a
    killed process ends with it. Raises ValueError if another process has it. ``what``: that is in use, for the
    message."""
    path = Path(path)
    handle = _open_locked(path, what)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock counts, not its content
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """In the block no other process is in such a block of the same folder; it waits for its turn. Nothing is written,
    so a killed process leaves nothing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _open_locked(path: Path, what: str) -> int:
    """An open and locked lock file, under its name."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _lock(handle)
            with contextlib.suppress(FileNotFoundError):  # the process before has removed it in between
                if os.fstat(handle).st_ino == path.stat(follow_symlinks=False).st_ino:
                    return handle
        except BlockingIOError:
            pid = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            by = f"process {pid}" if pid.isdigit() else "another process"
            raise ValueError(f"{what}: in use by {by}; wait until it has ended, or stop it") from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, wait: bool = False) -> None:
    """Lock a file or folder. Without ``wait``: raises BlockingIOError if another process has. Some file systems know no
    locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        pass


# Writing --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scratch(folder: str | Path, name: str) -> Iterator[Path]:
    """A new folder ``.NAME.PID.partial`` inside ``folder``, removed at the end of the block. It is locked meanwhile, so
    that :func:`remove_partials` can tell it from that of a killed process."""
    first = os.fsencode(name)[:200].decode(errors="ignore")  # a file system counts bytes
    path = Path(folder) / f".{first}.{os.getpid()}{PARTIAL}"
    shutil.rmtree(path, ignore_errors=True)  # from a killed process with the same id
    path.mkdir()
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(BlockingIOError):
            _lock(handle)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A path to write instead of ``path``; at the end of the block it is flushed and renamed. If the process is killed,
    the old file or the new one is there; after an exception the old one, and nothing else. An OSError names ``path``.

    The path is in a folder of its own: a library that writes (safetensors) may create temporary files next to it, which
    a killed process would leave. The first writer in a folder removes those of killed processes. The file's mode
    follows the umask, or stays that of the old file.
    """
    path = Path(path)
    try:
        _remove_old_partials(path.parent)
        with scratch(path.parent, path.name) as folder:
            partial = folder / path.name
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            partial.chmod((path if path.is_file() else folder).stat().st_mode & 0o666)
            os.replace(partial, path)
        parent = os.open(path.parent, os.O_RDONLY)  # the new name must survive a power cut too
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        own = error.filename is None or PARTIAL in str(error.filename)
        if error.errno is not None and own and not isinstance(error, NoSpace):
            error.filename, error.filename2 = str(path), None
        raise


def is_scratch(path: Path) -> bool:
    """Whether a path has the name of a folder that :func:`scratch` makes, and is not another program's."""
    return re.fullmatch(rf"\..*\.[0-9]+{re.escape(PARTIAL)}", path.name, re.DOTALL) is not None


_clean: set[Path] = set()  # folders without temporary folders of processes that were killed before this one began


def _remove_old_partials(folder: Path) -> None:
    folder = Path(os.path.abspath(folder))
    if folder not in _clean:
        remove_partials(folder, deep=False)
        _clean.add(folder)


def remove_partials(folder: str | Path, deep: bool = True) -> None:
    """Remove the temporary folders of killed writers in ``folder``, and with ``deep`` in all folders below."""
    pattern = f".*{PARTIAL}"
    candidates = list(Path(folder).rglob(pattern) if deep else Path(folder).glob(pattern))
    for partial in filter(is_scratch, candidates):
        try:
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # removed in between, or no writer's
            continue
        try:
            _lock(handle)
            shutil.rmtree(partial, ignore_errors=True)
        except BlockingIOError:  # its writer is at work
            pass
        finally:
            os.close(handle)


def check_place(path: str | Path, what: str, folder: bool = False) -> None:
    """Raises ValueError if a file is where a path needs a folder. ``folder``: the path is a folder itself. ``what``:
    the option and its value."""
    if not str(path):
        raise ValueError(f"{what}: must be a path, got an empty text")
    places = [*reversed(Path(path).parents), *([Path(path)] if folder else [])]
    for place in places:
        if place.exists() and not place.is_dir():
            raise ValueError(f"{what}: '{place}' is a file, must be a folder; name another place")


def is_new(folder: str | Path) -> bool:
    """Whether there is no such folder, or nothing in it but what a killed process leaves before its first file."""
    folder = Path(folder)
    if not folder.is_dir():
        return not (folder.exists() or folder.is_symlink())
    return all(is_scratch(p) or p.name == LOCK for p in folder.iterdir())


def check_new(folder: str | Path) -> None:
    """Raises ValueError if the folder exists and has files other than those of a killed writer."""
    check_place(folder, f"--out {folder}")
    if not is_new(folder):
        advice = f"name another folder with --out, or continue the run with zoo resume {shell_word(folder)}"
        raise ValueError(f"out='{folder}': exists already; {advice}")


def shell_word(text: str | Path) -> str:
    """A path or a name as a word of the shell, for the commands in messages."""
    return shlex.quote(str(text))


def no_space(error: Exception) -> bool:
    """Whether an error means that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# Hashes ---------------------------------------------------------------------------------------------------------------


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of the tensors in a safetensors file (names, types, shapes, bytes), in hexadecimal. The metadata in
    its header do not matter. Raises ValueError if it is not a safetensors file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in sorted(header.items()):
                first, end = entry["data_offsets"]
                digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                file.seek(8 + length + first)
                content = file.read(end - first)
                if len(content) != end - first:
                    raise ValueError("cut short")
                digest.update(content)
        except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError, struct.error) as error:
            raise ValueError(f"file '{path}': truncated or no safetensors file ({error})") from None
    return digest.hexdigest()
