"""On a CUDA device: every recipe plays as it does on the CPU, no round waits for the device, and runs resume bit for bit.

Skipped where torch finds none. (test_recipes.py shows without one that nothing is left on the CPU.)
"""

import dataclasses

import pytest
import torch
from helpers.play import CPU, Every, Killed, kill_at, log_of, play, same, session
from helpers.recipes import every_stage, small, stand_in
from test_compile import KINDS
from test_layouts import first_round, same_round
from test_resume import short

import zoo
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def flags():
    """What a deterministic run asks of torch does not outlast the test."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


@every_stage
def test_plays_as_on_the_cpu(name, stage):
    """In both layouts."""
    for layout in ("contiguous", "channels_last"):
        runtime = Runtime(device="cuda", deterministic=True, tf32=False, layout=layout)
        same_round(first_round(name, CPU, stage), first_round(name, runtime, stage))


@every_stage
def test_no_round_waits_for_the_device(name, stage):
    """CUDA itself refuses every synchronizing call while two rounds are played."""
    made = small(name)
    opened = session(made, stand_in(made, stage), stage=stage, runtime=Runtime(device="cuda"))
    opened.play_round()  # libraries choose their kernels in the first
    torch.cuda.set_sync_debug_mode("error")
    seen = []
    for _ in range(2):
        opened.play_round(lambda round, name, value: seen.append(value))
    torch.cuda.set_sync_debug_mode("default")
    assert seen and all(v.device.type == "cuda" and torch.isfinite(v).all() for v in seen)


def test_that_test_can_fail():
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
def test_resumed_equals_unbroken(name, layout, tmp_path, monkeypatch):
    """As on the CPU, where deterministic kernels are asked for."""
    monkeypatch.setattr(train, "Clock", Every)
    made, runtime = short(name), Runtime(device="cuda", layout=layout, deterministic=True)
    source = stand_in(made)
    train.train(made, tmp_path / "whole", runtime=runtime, dataset=source)
    with pytest.raises(Killed):
        train.train(made, tmp_path / "cut", runtime=runtime, dataset=source, progress=kill_at(Every.save + 1))
    torch.manual_seed(12345)
    train.resume(tmp_path / "cut", dataset=source)
    whole, cut = (checkpoint.load(tmp_path / run / CHECKPOINT)[0] for run in ("whole", "cut"))
    assert same(whole, cut)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")


def test_fused_optimizers():
    """Adam updates in one kernel."""
    made = small("dcgan-fashion-mnist")
    opened = session(made, stand_in(made), runtime=Runtime(device="cuda"))
    assert all(o.defaults["fused"] for o in opened.learner.optimizers.values())


@pytest.mark.parametrize("name", KINDS)
def test_bf16(name):
    """Losses and weights stay in float32, the play is the same but for rounding."""
    made = small(name)
    source = stand_in(made)
    plain, rough = (
        play(session(made, source, runtime=Runtime(device="cuda", precision=p)), 1) for p in ("fp32", "bf16")
    )
    for key in (k for k in plain if k.startswith("loss/")):
        assert rough[key][0] == pytest.approx(plain[key][0], rel=0.05, abs=0.05), key
    assert rough != plain


@pytest.mark.parametrize("name", ["sngan-fashion-mnist", "wgan-gp-mnist-small"])
def test_compiled(name):
    """To kernels of the device's own, with the penalty's second gradient: the same losses over two rounds."""
    torch._dynamo.reset()
    made = small(name)
    source = stand_in(made)
    plain, traced = (
        play(session(made, source, runtime=Runtime(device="cuda", tf32=False, compile=c)), 2) for c in (False, True)
    )
    for key, values in plain.items():
        assert traced[key] == pytest.approx(values, rel=1e-3, abs=1e-3), key


def test_weights_trained_there_sample_here(tmp_path):
    """A run on the device leaves a file that loads on the CPU; image k of a sample is the same on both."""
    made = short("dcgan-fashion-mnist")
    run = train.train(made, tmp_path / "run", runtime=Runtime(device="cuda", tf32=False), dataset=stand_in(made))
    model = zoo.load(run)
    here = model.sample(4, seed=3)
    there = model.to("cuda").sample(4, seed=3)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


@pytest.fixture
def little_memory():
    """Most of the device's memory is not this process's to take."""
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / whole))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_too_large_a_batch_is_told(tmp_path, little_memory):
    """The line names a batch that fits."""
    made = short("dcgan-fashion-mnist")
    stage = dataclasses.replace(made.stages[0], batch=1 << 17, images=1 << 17)
    with pytest.raises(RuntimeError, match="out of memory at batch=131072: try --set batch=65536"):
        train.train(
            made.replace(stages=(stage,)), tmp_path / "run", runtime=Runtime(device="cuda"), dataset=stand_in(made)
        )
