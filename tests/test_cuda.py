"""On a CUDA device: recipes train as on the CPU, no round waits for the device, and runs resume bit for bit.

One recipe a game, in less than two minutes; ``--all-recipes`` adds every stage of the others. Skipped if torch has no
such device. ``ZOO_TEST_DEVICE=cpu`` runs the same code on the CPU, as far as it has a meaning there. (test_recipes.py
shows without a device that no tensor stays on the CPU.)
"""

import contextlib
import dataclasses
import functools
import os

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, play, same, session
from helpers.recipes import STAGES, one_a_game, small, stand_in
from helpers.rounds import first_round, same_round, short
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.runtime import Runtime

DEVICE = os.environ.get("ZOO_TEST_DEVICE", "cuda")
CUDA = DEVICE == "cuda"
pytestmark = pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="needs a CUDA device")
only_cuda = pytest.mark.skipif(not CUDA, reason="has no meaning on another device")


GAMES = [*one_a_game().values()]
every_game = pytest.mark.parametrize(("name", "stage"), GAMES, ids=[*one_a_game()])
every_stage = pytest.mark.parametrize(
    ("name", "stage"),
    [pytest.param(*s, marks=[] if s in GAMES else pytest.mark.all_recipes, id=f"{s[0]}-{s[1] + 1}") for s in STAGES],
)


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    """Reset the global flags that a test sets. On the CPU losses are traced, but no machine code is generated."""
    if not CUDA:
        compile = functools.partial(torch.compile, backend="aot_eager")
        monkeypatch.setattr(torch, "compile", lambda loss, mode=None: compile(loss))
    yield
    torch.use_deterministic_algorithms(False)
    if CUDA:
        torch.cuda.set_sync_debug_mode("default")


class ScalarReads(TorchDispatchMode):
    """Raises RuntimeError for a scalar that is read; the optimizers' own counters on the CPU are excepted."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(func):
            raise RuntimeError("called a synchronizing operation")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting():
    """Calls that wait for the device raise RuntimeError."""
    if not CUDA:
        with ScalarReads():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@every_stage
def test_same_round_as_on_the_cpu(name, stage):
    """In both layouts."""
    recipe = small(name)
    for layout in ("contiguous", "channels_last"):
        cuda = Runtime(device=DEVICE, deterministic=True, layout=layout)
        same_round(*(first_round(recipe, stand_in(recipe, stage), runtime, stage) for runtime in (CPU, cuda)))


@every_stage
def test_no_round_waits_for_the_device(name, stage):
    """CUDA raises an error for every synchronizing call in two rounds."""
    recipe = small(name)
    run = session(recipe, stand_in(recipe, stage), stage=stage, runtime=Runtime(device=DEVICE))
    run.play_round()  # libraries choose their kernels in the first
    values = []
    with no_waiting():
        for _ in range(2):
            run.play_round(lambda round, name, value: values.append(value))
    assert values and all(v.device.type == DEVICE and torch.isfinite(v).all() for v in values)


def test_synchronizing_calls_raise():
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting():
        torch.ones((), device=DEVICE).item()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["wgan-gp-mnist-small", "sagan-fashion-mnist", "cyclegan-emoji-small"])
def test_resume_equals_unbroken_run(name, layout, tmp_path, monkeypatch):
    """As on the CPU, with deterministic kernels."""
    monkeypatch.setattr(train, "Clock", Every)
    recipe, runtime = short(small(name)), Runtime(device=DEVICE, layout=layout, deterministic=True)
    source = stand_in(recipe)
    train.train(recipe, tmp_path / "whole", runtime=runtime, dataset=source)
    with pytest.raises(Killed):
        train.train(recipe, tmp_path / "cut", runtime=runtime, dataset=source, progress=kill_at(Every.save + 1))
    torch.manual_seed(12345)
    train.resume(tmp_path / "cut", dataset=source)
    whole, cut = (checkpoint.load(tmp_path / run / CHECKPOINT)[0] for run in ("whole", "cut"))
    assert same(whole, cut)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")


def test_fused_optimizers():
    """Adam updates in one kernel."""
    recipe = small("dcgan-fashion-mnist")
    run = session(recipe, stand_in(recipe), runtime=Runtime(device=DEVICE))
    assert all(o.defaults["fused"] for o in run.learner.optimizers.values())


@every_game
def test_bf16(name, stage):
    """First losses are the same to rounding."""
    recipe = small(name)
    source = stand_in(recipe, stage)
    fp32, bf16 = (
        play(session(recipe, source, stage=stage, runtime=Runtime(device=DEVICE, precision=p)), 2)
        for p in ("fp32", "bf16")
    )
    for key in (k for k in fp32 if k.startswith("loss/")):
        assert bf16[key][0] == pytest.approx(fp32[key][0], rel=0.05, abs=0.05), key
    assert bf16 != fp32


@every_game
def test_compiled_to_graphs(name, stage):
    """Kernels of the device in CUDA graphs, with the penalty's second gradient: the same losses over five rounds, of
    which the first is eager and the last three are replayed."""
    torch._dynamo.reset()
    recipe = small(name)
    source = stand_in(recipe, stage)
    eager, graphs = (
        play(session(recipe, source, stage=stage, runtime=Runtime(device=DEVICE, cuda_graphs=g)), 5)
        for g in (False, True)
    )
    for key, values in eager.items():
        assert graphs[key] == pytest.approx(values, rel=1e-2, abs=1e-2), key


@only_cuda
def test_choices_of_precision():
    """Float32 products are exact unless tf32 or bf16 is chosen."""
    for precision, expected in (("fp32", False), ("tf32", True), ("bf16", True)):
        Runtime(device=DEVICE, precision=precision).prepare_device()
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == expected


def test_weights_from_cuda_sample_on_the_cpu(tmp_path):
    """A run on the device writes a file that loads on the CPU; image k of a sample is the same on both."""
    recipe = short(small("dcgan-fashion-mnist"))
    run = train.train(recipe, tmp_path / "run", runtime=Runtime(device=DEVICE), dataset=stand_in(recipe))
    model = zoo.load(run)
    on_cpu = model.sample(4, seed=3)
    on_cuda = model.to(DEVICE).sample(4, seed=3)
    assert on_cuda.device.type == DEVICE
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


@pytest.fixture
def little_memory():
    """This process may use 2 GB of the device's memory."""
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / total_bytes))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@only_cuda
def test_out_of_memory_suggests_a_batch(tmp_path, little_memory):
    """The error names a batch that may fit."""
    recipe = short(small("dcgan-fashion-mnist"))
    stage = dataclasses.replace(recipe.stages[0], batch=1 << 17, images=1 << 17)
    large, source = recipe.replace(stages=(stage,)), stand_in(recipe)
    with pytest.raises(RuntimeError, match="out of memory at batch=131072: try --set batch=65536"):
        train.train(large, tmp_path / "run", runtime=Runtime(device=DEVICE), dataset=source)
