"""On a CUDA device: every recipe trains as on the CPU, no round waits for the device, and runs resume bit for bit.

Skipped if torch has no such device. (test_recipes.py shows without one that no tensor stays on the CPU.)
"""

import dataclasses

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, play, same, session
from helpers.recipes import every_stage, small, stand_in
from helpers.rounds import KINDS, first_round, same_round, short

import zoo
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def flags():
    """Reset the global flags that a test sets."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


@every_stage
def test_same_round_as_on_the_cpu(name, stage):
    """In both layouts."""
    recipe = small(name)
    for layout in ("contiguous", "channels_last"):
        cuda = Runtime(device="cuda", deterministic=True, tf32=False, layout=layout)
        same_round(*(first_round(recipe, stand_in(recipe, stage), runtime, stage) for runtime in (CPU, cuda)))


@every_stage
def test_no_round_waits_for_the_device(name, stage):
    """CUDA raises an error for every synchronizing call in two rounds."""
    recipe = small(name)
    run = session(recipe, stand_in(recipe, stage), stage=stage, runtime=Runtime(device="cuda"))
    run.play_round()  # libraries choose their kernels in the first
    torch.cuda.set_sync_debug_mode("error")
    values = []
    for _ in range(2):
        run.play_round(lambda round, name, value: values.append(value))
    torch.cuda.set_sync_debug_mode("default")
    assert values and all(v.device.type == "cuda" and torch.isfinite(v).all() for v in values)


def test_synchronizing_calls_raise():
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones((), device="cuda").item()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "name",
    [
        "dcgan-fashion-mnist",
        "wgan-gp-mnist-small",
        "sagan-fashion-mnist",
        "vaegan-fashion-mnist",
        "cyclegan-emoji-small",
    ],
)
def test_resume_equals_unbroken_run(name, layout, tmp_path, monkeypatch):
    """As on the CPU, with deterministic kernels."""
    monkeypatch.setattr(train, "Clock", Every)
    recipe, runtime = short(small(name)), Runtime(device="cuda", layout=layout, deterministic=True)
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
    run = session(recipe, stand_in(recipe), runtime=Runtime(device="cuda"))
    assert all(o.defaults["fused"] for o in run.learner.optimizers.values())


@pytest.mark.parametrize("name", KINDS)
def test_bf16(name):
    """Losses are the same to rounding."""
    recipe = small(name)
    source = stand_in(recipe)
    fp32, bf16 = (
        play(session(recipe, source, runtime=Runtime(device="cuda", precision=p)), 1) for p in ("fp32", "bf16")
    )
    for key in (k for k in fp32 if k.startswith("loss/")):
        assert bf16[key][0] == pytest.approx(fp32[key][0], rel=0.05, abs=0.05), key
    assert bf16 != fp32


@pytest.mark.parametrize("name", ["sngan-fashion-mnist", "wgan-gp-mnist-small"])
def test_compiled(name):
    """To kernels of the device, with the penalty's second gradient: the same losses over two rounds."""
    torch._dynamo.reset()
    recipe = small(name)
    source = stand_in(recipe)
    eager, compiled = (
        play(session(recipe, source, runtime=Runtime(device="cuda", tf32=False, compile=c)), 2) for c in (False, True)
    )
    for key, values in eager.items():
        assert compiled[key] == pytest.approx(values, rel=1e-3, abs=1e-3), key


def test_weights_from_cuda_sample_on_the_cpu(tmp_path):
    """A run on the device writes a file that loads on the CPU; image k of a sample is the same on both."""
    recipe = short(small("dcgan-fashion-mnist"))
    run = train.train(recipe, tmp_path / "run", runtime=Runtime(device="cuda", tf32=False), dataset=stand_in(recipe))
    model = zoo.load(run)
    on_cpu = model.sample(4, seed=3)
    on_cuda = model.to("cuda").sample(4, seed=3)
    assert on_cuda.device.type == "cuda"
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


@pytest.fixture
def little_memory():
    """This process may use 2 GB of the device's memory."""
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / total_bytes))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_suggests_a_batch(tmp_path, little_memory):
    """The error names a batch that may fit."""
    recipe = short(small("dcgan-fashion-mnist"))
    stage = dataclasses.replace(recipe.stages[0], batch=1 << 17, images=1 << 17)
    large, source = recipe.replace(stages=(stage,)), stand_in(recipe)
    with pytest.raises(RuntimeError, match="out of memory at batch=131072: try --set batch=65536"):
        train.train(large, tmp_path / "run", runtime=Runtime(device="cuda"), dataset=source)
