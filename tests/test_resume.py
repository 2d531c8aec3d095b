"""Training 2n images equals n + kill + resume n, bit for bit; and no instant of a kill, nor a full disk, leaves a torn file."""

import contextlib
import errno
import json
import os
import random
import resource
import signal
import subprocess
import time

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, recipe, same
from helpers.recipes import NAMES, small, stand_in

from zoo import hub, settings
from zoo.engine import checkpoint, train
from zoo.engine.dry_run import dry_run
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, SAMPLES, WEIGHTS, RunFolder
from zoo.engine.runtime import Runtime
from zoo.engine.stage import resolve
from zoo.files import beside, remove_partials
from zoo.recipe import Adam, Ema, Recipe

ROUNDS = 6


def short(name: str) -> Recipe:
    """A recipe reduced to small networks and ``ROUNDS`` rounds a stage; its schedules shrink with them."""
    from zoo.data import facts

    recipe = small(name)
    planned = dry_run(resolve(recipe, facts(recipe.dataset)), facts(recipe.dataset))
    stages = (
        recipe.replace(stages=(s,)).rescaled(int(ROUNDS * p["images_a_round"])).stages[0]
        for s, p in zip(recipe.stages, planned, strict=True)
    )
    return recipe.replace(stages=tuple(stages))


def one_of_each_game() -> list[tuple[str, int]]:
    """For each game one recipe that plays it, if there is one of several stages that, and each of its stages."""
    chosen: dict[str, str] = {}
    order = sorted(NAMES, key=lambda n: (-len(settings.find(n).stages), not settings.find(n).ema, "small" not in n))
    for name in order:
        for stage in settings.find(name).stages:
            chosen.setdefault(stage.game.name, name)
    return [(name, i) for name in sorted(set(chosen.values())) for i in range(len(settings.find(name).stages))]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "name", ["dcgan-fashion-mnist", "wgan-gp-cifar10-small", "sagan-cifar10-small", "cyclegan-emoji-small"]
)
def test_resumed_equals_unbroken(name, layout, tmp_path, monkeypatch):
    resumed_equals_unbroken(name, 0, Runtime(device="cpu", layout=layout), tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "stage"), one_of_each_game())
def test_every_stage_and_game_is_resumed(name, stage, tmp_path, monkeypatch):
    resumed_equals_unbroken(name, stage, CPU, tmp_path, monkeypatch)


def resumed_equals_unbroken(name: str, stage: int, runtime: Runtime, tmp_path, monkeypatch) -> None:
    """Weights, moments, averages, memory and log: after the checkpoint one more round is played and lost."""
    monkeypatch.setattr(train, "Clock", Every)
    recipe = short(name)
    source = stand_in(recipe)
    train.train(recipe, tmp_path / "whole", runtime=runtime, dataset=source)
    with pytest.raises(Killed):
        progress = kill_at(Every.save + 1, stage)
        train.train(recipe, tmp_path / "cut", runtime=runtime, dataset=source, progress=progress)
    where = checkpoint.load(tmp_path / "cut" / CHECKPOINT)[1]
    assert (where["stage"], where["round"]) == (stage, Every.save)
    torch.manual_seed(12345)  # nothing depends on what the process did before
    train.resume(tmp_path / "cut", dataset=source)
    whole, facts = checkpoint.load(tmp_path / "whole" / CHECKPOINT)
    cut, again = checkpoint.load(tmp_path / "cut" / CHECKPOINT)
    assert any(k.startswith("optimizers.") for k in whole) and any(k.startswith("ema.") for k in whole)
    assert same(whole, cut)
    assert {**facts, "seconds": 0} == {**again, "seconds": 0} and facts["round"] >= ROUNDS
    assert facts["stage"] == len(recipe.stages) - 1
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    for tensors in (whole, cut):
        assert all(torch.isfinite(t).all() for t in tensors.values())


def test_a_restored_moment_has_its_parameters_layout(tmp_path):
    """What the equality above rests on where fused kernels pair elements by storage order."""
    made, runtime = short("dcgan-fashion-mnist"), Runtime(device="cpu", layout="channels_last")
    source = stand_in(made)
    run = train.train(made, tmp_path / "run", runtime=runtime, dataset=source)
    seen = []
    save = train.save

    def looked(run, *args):
        for optimizer in run.learner.optimizers.values():
            for p, state in optimizer.state.items():
                if p.dim() == 4:
                    assert state["exp_avg"].stride() == p.stride()
                    seen.append(p.is_contiguous(memory_format=torch.channels_last))
        save(run, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "save", looked)
        train.resume(run, dataset=source)
    assert seen and all(seen)


def test_resume_of_other_images_is_refused(tmp_path):
    made = short("dcgan-fashion-mnist")
    source = stand_in(made)
    run = train.train(made, tmp_path / "run", runtime=CPU, dataset=source)
    source.hash = "other"
    with pytest.raises(ValueError, match=r"run '.*run': the images of 'fashion-mnist' \(train\) are not those"):
        train.resume(run, dataset=source)


# Kills ----------------------------------------------------------------------------------------------------------------


def tiny() -> Recipe:
    """Rounds of a millisecond, on points; with averages, moments and batch norm's buffers."""
    from zoo.registry import Spec

    networks = {"G": Spec("test-mlp", norm=True), "D": Spec("test-mlp", outputs=1)}
    return recipe(optimizer=Adam(lr=0.01), networks=networks, ema={"G": Ema(halflife=50)}, images=30 * 8)


class Often(Every):
    save = 3


def in_child(work) -> int:
    """Run ``work`` in a forked process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        torch.set_num_threads(1)
        train.Clock = Often
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def kill(work, folder, when: float, writing: bool) -> bool:
    """Start ``work`` in a process and kill -9 it ``when`` seconds later; with ``writing``, at the first moment from then on
    at which a checkpoint is being written. Whether it died of it."""
    pid = in_child(work)
    until = time.monotonic() + when
    while time.monotonic() < until:
        time.sleep(0.0005)
    partial = folder / f".{CHECKPOINT}.{pid}.partial"
    while writing and not partial.exists():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def check_whole(folder) -> None:
    """Whatever stands in the folder under its own name can be read."""
    reads = {CHECKPOINT: checkpoint.load, WEIGHTS: hub.load, RECIPE: lambda path: json.loads(path.read_text())}
    for name, read in reads.items():
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
    """A forked process must not wait for threads that it has not inherited; bits may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kill_at_random_instants(tmp_path, monkeypatch, one_thread):
    """kill -9 at 50 random instants, at least 15 of them inside the writing of a checkpoint: what is there can be read, and
    each run, killed up to eight times, ends as the unbroken one."""
    monkeypatch.setattr(train, "Clock", Often)
    train.train(tiny(), tmp_path / "first", runtime=CPU)  # what is loaded once is not to be timed
    began = time.monotonic()
    train.train(tiny(), tmp_path / "whole", runtime=CPU)
    longest = time.monotonic() - began
    whole, log = checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0], log_of(tmp_path / "whole")
    draw, kills, inside, runs = random.Random(0), 0, 0, 0
    while kills < 50 or inside < 15:
        folder, runs, survived = tmp_path / f"run{runs}", runs + 1, 0
        while survived < 8 and kill(lambda: start_or_resume(folder), folder, draw.uniform(0, longest), kills % 2 == 0):  # noqa: B023
            kills, survived = kills + 1, survived + 1
            inside += any(folder.glob(f".{CHECKPOINT}.*"))
            check_whole(folder)
        start_or_resume(folder)
        assert same(whole, checkpoint.load(folder / CHECKPOINT)[0])
        assert log_of(folder) == log
        assert not list(folder.rglob(".*")), "left by writers that were killed"


def test_what_a_writer_leaves_beside_its_file_is_swept(tmp_path):
    """safetensors writes a file of its own beside the one that it was given; killed, it leaves it."""
    left = tmp_path / "left"

    def writes():
        with beside(tmp_path / "file") as partial:
            partial.with_name(".tmpAbC").write_bytes(b"half")
            left.touch()
            time.sleep(60)

    pid = in_child(writes)
    while not left.exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [p.name for p in tmp_path.rglob(".tmp*")] == [".tmpAbC"]
    remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["left"]


# A full disk ----------------------------------------------------------------------------------------------------------


def fails(work) -> str:
    """The one line of a run that finds the disk full."""
    with pytest.raises(OSError) as caught:
        work()
    said = str(caught.value)
    assert "\n" not in said and "zoo resume" in said and "free some space" in said
    return said


@pytest.fixture
def little_disk(tmp_path):
    """A folder, and what fills its disk: a file system in memory where one may be mounted, else a limit on the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode
        == 0
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(on: bool) -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000 if on else limits[0], limits[1]))
        elif on:
            with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 512):
                    pass
        else:
            (folder / "filler").unlink()

    yield folder, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(tmp_path, little_disk, monkeypatch):
    """One clear line; the last good checkpoint survives and nothing else is left; with room again the run goes on."""
    monkeypatch.setattr(train, "Clock", Every)
    folder, fill = little_disk
    train.train(tiny(), tmp_path / "whole", runtime=CPU)

    def progress(event, **facts):
        if event == "checkpoint" and checkpoint.load(folder / "run" / CHECKPOINT)[1]["round"] == 3:
            fill(True)

    said = fails(lambda: train.train(tiny(), folder / "run", runtime=CPU, progress=progress))
    assert f"run '{folder / 'run'}': cannot be written" in said
    assert checkpoint.load(folder / "run" / CHECKPOINT)[1]["round"] == 3
    check_whole(folder / "run")
    assert not list(folder.rglob("*.partial"))
    fill(False)
    train.resume(folder / "run")
    assert same(checkpoint.load(folder / "run" / CHECKPOINT)[0], checkpoint.load(tmp_path / "whole" / CHECKPOINT)[0])
    assert log_of(folder / "run") == log_of(tmp_path / "whole")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_at_any_write(tmp_path, monkeypatch, error):
    """Whichever file it is that the disk refuses: checkpoint, weights, grid, recipe or log."""
    monkeypatch.setattr(train, "Clock", Every)
    flush, calls = os.fsync, [0, 0]

    def refuse(handle):
        calls[0] += 1
        if calls[0] == calls[1]:
            raise OSError(error, os.strerror(error))
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    for calls[1] in range(1, 14):
        calls[0], folder = 0, tmp_path / f"run{calls[1]}"
        fails(lambda: train.train(tiny(), folder, runtime=CPU))  # noqa: B023
        assert not list(tmp_path.rglob("*.partial"))
        if calls[1] == 1:
            assert not folder.exists()  # it could not even be begun
        else:
            check_whole(folder)


def test_log_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(self, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "log", refuse)
    fails(lambda: train.train(tiny(), tmp_path / "run", runtime=CPU))
    checkpoint.load(tmp_path / "run" / CHECKPOINT)


def test_other_failures_keep_their_name(tmp_path):
    """Only a full disk is told as one."""
    with pytest.raises(PermissionError), checkpoint.disk(tmp_path):
        raise PermissionError(errno.EACCES, "not yours")


def test_torn_checkpoint_is_told(tmp_path):
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


def test_log_is_cut_where_the_checkpoint_ends(tmp_path):
    """Lines of rounds that a kill has undone go, a torn last line too."""
    run = train.train(tiny(), tmp_path / "run", runtime=CPU)
    with open(run / LOG, "a") as file:
        file.write('{"images": 9999999, "round": 1}\n{"images": 16, "rou')
    before = log_of_lines(run)[:-2]
    RunFolder(run).cut_log(240)
    assert log_of_lines(run) == before


def log_of_lines(run) -> list[str]:
    return (run / LOG).read_text().splitlines()
