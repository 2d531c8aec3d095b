"""Accidents: two processes in one folder, kills at any call, mistakes that are found late, full disks, permissions."""

import contextlib
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.play import CPU
from helpers.tiny import ROOT, image_spec, process, weights
from test_resume import in_child, tiny

from zoo import hub, parallel, publish
from zoo.engine import train
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, RunFolder, default_folders, new_run
from zoo.files import LOCK, beside, check_name, is_new, lock, remove_partials, scratch

torch.set_num_threads(1)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.002)


# Two processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """A process that trains the run ``run`` for a minute."""
    train.train(tiny(), tmp_path / "run", runtime=CPU)

    def work():
        with RunFolder(tmp_path / "run").lock():
            (tmp_path / "ready").touch()
            time.sleep(60)

    pid = in_child(work)
    wait_for(tmp_path / "ready")
    yield pid
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_run_in_use_is_not_resumed(tmp_path, holder, shell):
    log, recipe = ((tmp_path / "run" / name).read_bytes() for name in (LOG, RECIPE))
    result = shell("resume", "run")
    assert result.status == 2 and f"run 'run': in use by process {holder}" in result.err
    assert len(result.err.splitlines()) == 1
    assert ((tmp_path / "run" / LOG).read_bytes(), (tmp_path / "run" / RECIPE).read_bytes()) == (log, recipe)
    os.kill(holder, signal.SIGKILL)  # its lock ends with it
    os.waitpid(holder, 0)
    assert (tmp_path / "run" / LOCK).exists()
    assert shell("resume", "run").status == 0
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_lock_of_the_same_process(tmp_path):
    with lock(tmp_path / "a", "run 'a'"):
        assert (tmp_path / "a").read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(ValueError, match=f"run 'a': in use by process {os.getpid()}"),
            lock(tmp_path / "a", "run 'a'"),
        ):
            pass
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(OSError, match="symbolic"), lock(tmp_path / "a", "run 'a'"):
        pass
    assert not (tmp_path / "b").exists()


def test_trainings_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pids = [in_child(lambda: train.train(tiny(), runtime=CPU)) for _ in range(3)]
    assert [wait(pid) for pid in pids] == [0, 0, 0]
    names = [path.name for path in zip_first(default_folders(tiny().name, 0), 3)]
    assert sorted(p.name for p in Path("runs").iterdir()) == sorted(names)
    for name in names:
        assert hub.load(f"runs/{name}").card["images"] == 240 and not list(Path("runs", name).glob(".*"))


def zip_first(items, count: int) -> list:
    return [item for item, _ in zip(items, range(count), strict=False)]


def test_two_that_publish_at_once_lose_nothing(tmp_path):
    path = weights(tmp_path / "w.safetensors", image_spec())
    pids = [in_child(lambda n=n: publish.publish(path, tmp_path / "shelf", f"w{n}")) for n in range(3)]
    assert [wait(pid) for pid in pids] == [0, 0, 0]
    assert sorted(hub.index(tmp_path / "shelf")) == ["w0", "w1", "w2"]


def test_rank_0_says_which_folder_it_is():
    assert parallel.share("run", "here") == "here"


# Mistakes that are found late -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["data.flip=true", "stages.1.data.flip=true", "stages.1.data.dequantize=true"])
def test_a_late_mistake_leaves_no_folder(where, tmp_path, recipe_file, shell):
    text = recipe_file.read_text().replace("resolution=resolution),),", "resolution=resolution),) * 2,")
    recipe_file.write_text(text)
    for out in ((), ("--out", "new")):
        result = shell("train", recipe_file, "--dataset", "ring", *out, "--set", where)
        assert result.status == 2 and "must have images, but ring has points" in result.err
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == [recipe_file.name]


def test_an_error_before_the_first_checkpoint_leaves_no_folder(tmp_path, monkeypatch):
    """Whatever it is; a folder that was there stays."""

    def fail(*args):
        raise KeyError("x")

    monkeypatch.setattr(train, "draw_grid", lambda *args: None)
    monkeypatch.setattr(train, "save", fail)
    (tmp_path / "mine").mkdir()
    for out in ("a/b/new", "mine"):
        with pytest.raises(KeyError):
            train.train(tiny(), tmp_path / out, runtime=CPU)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


# Kills ----------------------------------------------------------------------------------------------------------------


def kill_at_call(work, number: int) -> bool:
    """Run ``work`` in a process that is killed at its n-th call of the operating system that changes a folder. Returns
    False if it has fewer."""

    def run():
        calls = 0

        def killing(function):
            def call(*args, **options):
                nonlocal calls
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return call

        for name in ("mkdir", "replace", "fsync", "open", "unlink", "rmdir", "ftruncate", "chmod"):
            setattr(os, name, killing(getattr(os, name)))
        work()

    return wait(in_child(run)) == -signal.SIGKILL


def test_a_run_killed_at_its_start_trains_or_resumes(tmp_path):
    """At each call of the operating system until recipe.json is there: train takes the folder, or resume does."""
    train.train(tiny().rescaled(8), tmp_path / "first", runtime=CPU)
    for number in range(1, 60):
        out = tmp_path / f"run{number}"

        def start(out=out):
            with new_run(out, tiny().rescaled(8), CPU, 0, init=None, dataset_object=False):
                pass

        killed = kill_at_call(start, number)
        if (out / RECIPE).exists():
            train.resume(out)
        else:
            train.train(tiny().rescaled(8), out, runtime=CPU)
        assert (out / CHECKPOINT).exists() and not list(out.glob(".*"))
        if not killed:
            break
    assert 8 < number < 59 and not killed


def sampling(folder: Path, out: str) -> None:
    from zoo.cli import main

    with contextlib.suppress(SystemExit):
        main(["sample", str(folder / "w.safetensors"), "-n", "3", "--out", str(folder / out)])


KILLED = {
    "publish": lambda folder: publish.publish(folder / "w.safetensors", folder / "out", "new"),
    "grid": lambda folder: sampling(folder, "out/new.png"),
    "files": lambda folder: sampling(folder, "out/"),
}


@pytest.mark.parametrize("name", KILLED)
def test_what_a_killed_process_leaves_is_removed_by_the_next(name, tmp_path):
    """At any call, by the same command."""
    weights(tmp_path / "w.safetensors", image_spec())
    work, remains = KILLED[name], 0
    for number in range(1, 200, 5):
        killed = kill_at_call(lambda: work(tmp_path), number)
        remains += bool(list(tmp_path.rglob("*.partial")))
        if not killed:
            break
    assert remains and not killed
    work(tmp_path)
    assert not list(tmp_path.rglob(".*"))
    names = {"publish": {"new.safetensors", "index.json"}, "grid": {"new.png"}}
    files = {"samples.json", "000000.png", "000001.png", "000002.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names.get(name, files)


def test_a_killed_export_leaves_no_file_beside(tmp_path):
    """Its draft is in a folder that the next writer removes; that of a writer at work stays."""
    with pytest.raises(KeyboardInterrupt), beside(tmp_path / "new.pt2") as draft:
        draft.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())

    def die():
        with scratch(tmp_path, "dead"):
            os.kill(os.getpid(), signal.SIGKILL)

    with scratch(tmp_path, "at-work") as own:
        assert wait(in_child(die)) == -signal.SIGKILL and len(list(tmp_path.glob(".*.partial"))) == 2
        (tmp_path / ".backup.partial").mkdir()  # another program's
        remove_partials(tmp_path)
        assert sorted(tmp_path.glob(".*.partial")) == sorted([own, tmp_path / ".backup.partial"])
        assert is_new(tmp_path) is False


@pytest.mark.parametrize(
    "name", ["画" * 84, "é" * 125, "a" * 250, "a" + "😀" * 62, b"\xff".decode(errors="surrogateescape") * 250]
)
def test_names_of_many_bytes(name, tmp_path):
    """The temporary folder's own name fits whatever name a file system takes."""
    path = tmp_path / name
    path.write_bytes(b"old")
    with beside(path) as partial:
        partial.write_bytes(b"new")
    assert path.read_bytes() == b"new" and [*tmp_path.iterdir()] == [path]


# Full disks and permissions -------------------------------------------------------------------------------------------


def limited() -> None:
    """No file may be longer than 3,000 bytes: the error of a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("args", "file"),
    [
        (("export", "w.safetensors", "--format", "torch", "--out", "out/new.pt2"), "out/new.pt2"),
        (("publish", "w.safetensors", "--to", "out", "--name", "new"), "new.safetensors"),
        (("sample", "w.safetensors", "-n", "64", "--scale", "8", "--out", "out/new.png"), "out/new.png"),
    ],
)
def test_a_full_disk_is_named_with_the_file(args, file, tmp_path):
    weights(tmp_path / "w.safetensors", image_spec())
    result = process("-m", "zoo", *args, cwd=tmp_path, preexec_fn=limited)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and file in line and "File too large" in line, (result.returncode, line)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "w.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "zoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert result.returncode == 1 and result.stderr == "zoo: standard output: No space left on device\n"


def test_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        train.train(tiny().rescaled(8), tmp_path / "run", runtime=CPU)
        publish.publish(tmp_path / "run", tmp_path / "shelf", "new")
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}
    assert len(modes) >= 6 and set(modes.values()) == {0o640}, modes
    (tmp_path / "shelf/index.json").chmod(0o600)  # the user's choice stays
    publish.publish(tmp_path / "run", tmp_path / "shelf", "other")
    assert stat.S_IMODE((tmp_path / "shelf/index.json").stat().st_mode) == 0o600


def test_a_damaged_header_of_the_store(own_home, shell):
    folder = own_home / "data/some-8"
    folder.mkdir(parents=True)
    entry = {"dtype": "U8", "shape": [0], "data_offsets": []}
    headers = [
        {"__metadata__": {"format": "2", "facts": "{}", "checksum": "0" * 64}, "x": entry, "_blocks": entry},
        {"__metadata__": {"format": "2", "facts": "[]"}, "x": {**entry, "data_offsets": [0, 0]}},
        {"__metadata__": {}}, {"__metadata__": []}, [], 5, "x", {"x": None}, {"_blocks": {"data_offsets": [0]}},
    ]  # fmt: skip
    for number, header in enumerate(headers):
        text = json.dumps(header).encode()
        (folder / f"{number}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    for content in (b"", b"\xff" * 8, struct.pack("<Q", 1 << 40), struct.pack("<Q", 3) + b"\xff\xfe\xfd"):
        (folder / f"{content[:3].hex() or 'empty'}.safetensors").write_bytes(content)
    (folder / "deep.safetensors").write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000)
    result = shell("data", "list")
    assert result.status == 0 and not result.out and not result.err


# Names ----------------------------------------------------------------------------------------------------------------

WRONG = [
    "../mine",
    "/etc/mine",
    "..",
    ".",
    ".hidden",
    "a/b",
    "a\\b",
    "",
    "a\nb",
    "-",
    "x" * 300,
    "a\x00b",
    None,
    5,
    "~",
]


@pytest.mark.parametrize("name", WRONG)
def test_a_name_is_one_plain_file_name(name, tmp_path):
    with pytest.raises(ValueError, match="must be one plain file name"):
        check_name(name, "--name ")
    if name:
        path = weights(tmp_path / "in/w.safetensors", image_spec(), name=name)
        with pytest.raises(ValueError, match=r"the name in its Card, .*must be one plain file name"):
            publish.publish(path, tmp_path / "friend/shelf")
    if isinstance(name, str):
        path = weights(tmp_path / "in/w.safetensors", image_spec())
        with pytest.raises(ValueError, match=r"--name .*must be one plain file name"):
            publish.publish(path, tmp_path / "friend/shelf", name)
    assert not (tmp_path / "friend").exists()
    if isinstance(name, str):
        with pytest.raises(ValueError, match="must be hf:OWNER/NAME"):
            hub.load(f"hf:{name}/x")


def test_plain_names_are_taken():
    for name in ("wgan-gp-cifar10-small", "a", "model_2.1+b", "данные"):
        assert check_name(name, "") == name
