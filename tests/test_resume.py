"""Training 2n images equals n + kill + resume n, bit for bit; a kill at any moment or a full disk leaves no incomplete
file."""

import contextlib
import copy
import errno
import functools
import json
import os
import random
import re
import resource
import signal
import subprocess
import time

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, recipe, same
from helpers.recipes import NAMES, small, stand_in, stand_in_of_all_stages
from helpers.rounds import ROUNDS, short

from zoo import hub, settings
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, SAMPLES, WEIGHTS, RunFolder
from zoo.engine.runtime import Runtime
from zoo.files import beside, remove_partials
from zoo.recipe import Adam, Ema, Recipe


def one_recipe_of_each_game() -> list[tuple[str, int]]:
    """Each stage of one recipe of each game; of images of one size, several stages, with EMA and small, if there is
    such a one."""

    def preference(name: str) -> tuple[bool, int, bool, bool]:
        recipe = settings.find(name)
        sizes = {stage.resolution for stage in recipe.stages}
        return len(sizes) > 1, -len(recipe.stages), not recipe.ema, "small" not in name

    names: dict[str, str] = {}
    for name in sorted(NAMES, key=preference):
        for stage in settings.find(name).stages:
            names.setdefault(stage.game.name, name)
    return [(name, i) for name in sorted(set(names.values())) for i in range(len(settings.find(name).stages))]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "name", ["dcgan-fashion-mnist", "wgan-gp-cifar10-small", "sagan-cifar10-small", "cyclegan-emoji-small"]
)
def test_resume_equals_unbroken_run(name, layout, tmp_path, monkeypatch):
    check_resume(name, 0, Runtime(device="cpu", layout=layout), tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "stage"), one_recipe_of_each_game())
def test_every_stage_and_game_resumes(name, stage, tmp_path, monkeypatch):
    check_resume(name, stage, CPU, tmp_path, monkeypatch)


def check_resume(name: str, stage: int, runtime: Runtime, tmp_path, monkeypatch) -> None:
    """Weights, moments, EMA, buffers and log: one more round is played after the checkpoint and lost."""
    monkeypatch.setattr(train, "Clock", Every)
    recipe = short(small(name))
    source = stand_in_of_all_stages(recipe)
    train.train(recipe, tmp_path / "whole", runtime=runtime, dataset=source)
    with pytest.raises(Killed):
        progress = kill_at(Every.save + 1, stage)
        train.train(recipe, tmp_path / "cut", runtime=runtime, dataset=source, progress=progress)
    facts = checkpoint.load(tmp_path / "cut" / CHECKPOINT)[1]
    assert (facts["stage"], facts["round"]) == (stage, Every.save)
    torch.manual_seed(12345)  # nothing depends on what the process did before
    train.resume(tmp_path / "cut", dataset=source)
    whole, whole_facts = checkpoint.load(tmp_path / "whole" / CHECKPOINT)
    cut, cut_facts = checkpoint.load(tmp_path / "cut" / CHECKPOINT)
    assert any(k.startswith("optimizers.") for k in whole)
    assert any(k.startswith("ema.") for k in whole) == bool(recipe.ema)
    assert same(whole, cut)
    assert {**whole_facts, "seconds": 0} == {**cut_facts, "seconds": 0}
    assert whole_facts["round"] >= ROUNDS and whole_facts["stage"] == len(recipe.stages) - 1
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    assert all(torch.isfinite(t).all() for t in whole.values())


def test_restored_moments_have_the_parameters_layout(tmp_path):
    """The equality above depends on it, as fused kernels pair elements by storage order."""
    recipe, runtime = short(small("dcgan-fashion-mnist")), Runtime(device="cpu", layout="channels_last")
    source = stand_in(recipe)
    run = train.train(recipe, tmp_path / "run", runtime=runtime, dataset=source)
    channels_last = []
    save = train.save

    def check_and_save(run, *args):
        for optimizer in run.learner.optimizers.values():
            for p, state in optimizer.state.items():
                if p.dim() == 4:
                    assert state["exp_avg"].stride() == p.stride()
                    channels_last.append(p.is_contiguous(memory_format=torch.channels_last))
        save(run, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "save", check_and_save)
        train.resume(run, dataset=source)
    assert channels_last and all(channels_last)


def test_resume_with_other_images_fails(tmp_path):
    recipe = short(small("dcgan-fashion-mnist"))
    source = stand_in(recipe)
    run = train.train(recipe, tmp_path / "run", runtime=CPU, dataset=source)
    source.hash = "other"
    with pytest.raises(ValueError, match=r"run '.*run': the images of 'fashion-mnist' \(train\) are not those"):
        train.resume(run, dataset=source)


# Kills ----------------------------------------------------------------------------------------------------------------


def tiny() -> Recipe:
    """Rounds of a millisecond, on points; with EMA, moments and the buffers of batch norm."""
    from zoo.registry import Spec

    networks = {"G": Spec("test-mlp", norm=True), "D": Spec("test-mlp", outputs=1)}
    return recipe(optimizer=Adam(lr=0.01), networks=networks, ema={"G": Ema(halflife=50)}, images=30 * 8)


def in_child(work) -> int:
    """Run ``work`` in a forked process. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        torch.set_num_threads(1)
        train.Clock = Every
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def kill(work, folder, seconds: float, writing: bool) -> bool:
    """Start ``work`` in a process and kill -9 it after ``seconds``; with ``writing``, at the first moment after that at
    which it writes a checkpoint. Returns False if it ended before."""
    pid = in_child(work)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.0005)
    partial = folder / f".{CHECKPOINT}.{pid}.partial"
    while writing and not partial.exists():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def check_files(folder) -> None:
    """Every file in the folder under its final name can be read."""
    readers = {CHECKPOINT: checkpoint.load, WEIGHTS: hub.load, RECIPE: lambda path: json.loads(path.read_text())}
    for name, read in readers.items():
        if (folder / name).exists():
            read(folder / name)
    from PIL import Image

    for png in (folder / SAMPLES).glob("[!.]*.png"):
        Image.open(png).load()


def start_or_resume(folder) -> None:
    if (folder / RECIPE).exists():
        train.resume(folder)
    else:
        train.train(tiny(), folder, runtime=CPU)


@pytest.fixture
def one_thread():
    """A forked process must not wait for threads that it has not inherited; bits may depend on the number of
    threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kill_at_random_moments(tmp_path, monkeypatch, one_thread):
    """kill -9 at 50 random moments, at least 15 of them while a checkpoint is written: all files can be read, and
    each run, killed up to eight times, ends as the unbroken one."""
    monkeypatch.setattr(train, "Clock", Every)
    train.train(tiny(), tmp_path / "first", runtime=CPU)  # modules that are loaded once do not count
    start = time.monotonic()
    train.train(tiny(), tmp_path / "whole", runtime=CPU)
    longest = time.monotonic() - start
    whole, log = checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0], log_of(tmp_path / "whole")
    rng, kills, kills_writing, runs = random.Random(0), 0, 0, 0
    while kills < 50 or kills_writing < 15:
        folder, runs, kills_of_run = tmp_path / f"run{runs}", runs + 1, 0
        work = functools.partial(start_or_resume, folder)
        while kills_of_run < 8 and kill(work, folder, rng.uniform(0, longest), kills % 2 == 0):
            kills, kills_of_run = kills + 1, kills_of_run + 1
            kills_writing += any(folder.glob(f".{CHECKPOINT}.*"))
            check_files(folder)
        start_or_resume(folder)
        assert same(whole, checkpoint.load(folder / CHECKPOINT)[0])
        assert log_of(folder) == log
        assert not list(folder.rglob(".*")), "temporary files of killed processes"


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    """safetensors writes a temporary file of its own beside its target, which stays if it is killed."""
    ready = tmp_path / "ready"

    def writes():
        with beside(tmp_path / "file") as partial:
            partial.with_name(".tmpAbC").write_bytes(b"half")
            ready.touch()
            time.sleep(60)

    pid = in_child(writes)
    while not ready.exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [p.name for p in tmp_path.rglob(".tmp*")] == [".tmpAbC"]
    remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["ready"]


# A full disk ----------------------------------------------------------------------------------------------------------


def disk_full_message(work) -> str:
    """Assert that ``work`` fails because of a full disk. Returns the message."""
    with pytest.raises(OSError) as error:
        work()
    message = str(error.value)
    assert "\n" not in message and "free some space" in message
    assert ("its last good checkpoint is whole" in message) == ("zoo resume" in message)
    return message


@pytest.fixture
def little_disk(tmp_path):
    """A folder, and a function that fills its disk: a file system in memory if it can be is_mount, otherwise a limit on
    the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder]
    is_mount = subprocess.run(command, capture_output=True).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(on: bool) -> None:
        if not is_mount:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000 if on else limits[0], limits[1]))
        elif on:
            with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 512):
                    pass
        else:
            (folder / "filler").unlink()

    yield folder, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if is_mount:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(tmp_path, little_disk, monkeypatch):
    """One clear line; the last checkpoint stays and no other file; the run resumes once there is space again."""
    monkeypatch.setattr(train, "Clock", Every)
    folder, fill = little_disk
    train.train(tiny(), tmp_path / "whole", runtime=CPU)

    def progress(event, **facts):
        if event == "checkpoint" and checkpoint.load(folder / "run" / CHECKPOINT)[1]["round"] == 3:
            fill(True)

    message = disk_full_message(lambda: train.train(tiny(), folder / "run", runtime=CPU, progress=progress))
    assert message.startswith(f"run '{folder / 'run'}': ") and "cannot be written" in message
    assert message.endswith(f"zoo resume {folder / 'run'}")
    assert checkpoint.load(folder / "run" / CHECKPOINT)[1]["round"] == 3
    check_files(folder / "run")
    assert not list(folder.rglob("*.partial"))
    fill(False)
    train.resume(folder / "run")
    assert same(checkpoint.load(folder / "run" / CHECKPOINT)[0], checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0])
    assert log_of(folder / "run") == log_of(tmp_path / "whole")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_at_any_write(tmp_path, monkeypatch, error):
    """Whichever file it is: checkpoint, weights, grid, recipe or log."""
    monkeypatch.setattr(train, "Clock", Every)
    fsync, calls, failing_call = os.fsync, 0, 0

    def fail(handle):
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(error, os.strerror(error))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    for failing_call in range(1, 14):
        calls, folder = 0, tmp_path / f"run{failing_call}"
        message = disk_full_message(functools.partial(train.train, tiny(), folder, runtime=CPU))
        assert not list(tmp_path.rglob("*.partial"))
        assert re.search(r": (recipe\.json|checkpoint|weights|log|0+[0-9]*\.png)", message)
        if (folder / CHECKPOINT).exists():
            check_files(folder)
            assert "its last good checkpoint is whole" in message
        else:
            assert not folder.exists() and "it has no checkpoint yet" in message and "begin it again" in message


def test_log_that_cannot_be_written(tmp_path, monkeypatch):
    def fail(self, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "log", fail)
    assert "its log" in disk_full_message(lambda: train.train(tiny(), tmp_path / "run", runtime=CPU))
    checkpoint.load(tmp_path / "run" / CHECKPOINT)


def test_other_errors_keep_their_type(tmp_path):
    """Only a full disk is reported as one."""
    with pytest.raises(PermissionError), checkpoint.disk(tmp_path):
        raise PermissionError(errno.EACCES, "not yours")


def test_error_for_a_damaged_checkpoint(tmp_path):
    """A file cut short, another's file, no file: one line each."""
    run = train.train(tiny(), tmp_path / "run", runtime=CPU)
    path = run / CHECKPOINT
    content = path.read_bytes()
    for damaged in (content[:100], content[:-10], b"", content.replace(b'"zoo"', b'"ooz"', 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint .*: unreadable or not a checkpoint"):
            train.resume(run)
    with pytest.raises(ValueError, match=r"no readable recipe.json there; is it the folder of a run\?"):
        train.resume(tmp_path)


def test_a_changed_bit_of_a_checkpoint_is_noticed(tmp_path):
    """Neither ``resume`` nor ``--init`` goes on with it."""
    run = train.train(tiny(), tmp_path / "run", runtime=CPU)
    path = run / CHECKPOINT
    content = path.read_bytes()
    for place in (9, content.index(b"total_images"), len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"checkpoint .*: unreadable or not a checkpoint"):
            train.resume(run)
        with pytest.raises(ValueError, match=r"checkpoint .*: unreadable or not a checkpoint"):
            train.train(tiny(), tmp_path / "other", runtime=CPU, init=run)
    path.write_bytes(content)
    train.resume(run)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    """An edited recipe.json, another seed, and the checkpoint of another run."""
    runs = [train.train(tiny().rescaled(n), tmp_path / f"run{n}", runtime=CPU) for n in (80, 160)]
    text = (runs[0] / RECIPE).read_text()
    facts = json.loads(text)
    edited = copy.deepcopy(facts)
    edited["recipe"]["stages"][0]["images"] = 8000
    for other in (edited, {**facts, "seed": 7}, json.loads((runs[1] / RECIPE).read_text())):
        (runs[0] / RECIPE).write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"run '.*run80': recipe.json is not that of its checkpoint") as caught:
            train.resume(runs[0])
        assert "\n" not in str(caught.value)
    (runs[0] / RECIPE).write_text(json.dumps({**facts, "machines": []}))  # what else is there may change
    train.resume(runs[0])


def test_log_is_cut_to_the_checkpoint(tmp_path):
    """Lines of rounds after the checkpoint are removed, and an incomplete last line too."""
    run = train.train(tiny(), tmp_path / "run", runtime=CPU)
    with open(run / LOG, "a") as file:
        file.write('{"images": 9999999, "round": 1}\n{"images": 16, "rou')
    expected = log_lines(run)[:-2]
    RunFolder(run).cut_log(240)
    assert log_lines(run) == expected


def log_lines(run) -> list[str]:
    return (run / LOG).read_text().splitlines()
