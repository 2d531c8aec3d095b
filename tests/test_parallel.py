"""Several real processes that communicate with gloo, as torchrun starts them."""

import json
import os
import signal
import socket
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.play import (
    CPU,
    Duel,
    Every,
    game,
    image_recipe,
    images,
    log_of,
    moved,
    play,
    recipe,
    same,
    session,
    state,
    weights,
)
from helpers.pretrained import ENCODER, FEATURES, described, described_recipe, put_weights
from helpers.recipes import small, stand_in
from safetensors.torch import load_file, save_file
from torch import nn

from zoo import hub, parallel
from zoo.discriminate import DiscriminatorOutput, keep_running_averages
from zoo.engine import checkpoint, log, train
from zoo.engine.run_folder import CHECKPOINT
from zoo.engine.stage import StageRun
from zoo.game import Batch, Turn
from zoo.networks.improved_gan import MinibatchFeatures
from zoo.networks.layers import BatchNorm2d, MinibatchStandardDeviation
from zoo.pretrained import FolderSource
from zoo.recipe import SGD, Adam, Ema
from zoo.registry import GAMES, HEADS, NETWORKS, Spec


def processes(work, count: int = 2, local: int | None = None, expect: tuple = ()) -> None:
    """Run ``work(rank)`` in ``count`` processes of one group.

    Args:
        work: called in every process.
        count: of processes.
        local: processes for each simulated machine; by default all.
        expect: exit statuses by rank, if they are not all 0.

    Raises AssertionError with the processes' tracebacks if a status differs.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    local, children = local or count, []
    for rank in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                torch.set_num_threads(1)
                group = {"RANK": rank, "LOCAL_RANK": rank % local, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": local}
                os.environ.update({k: str(v) for k, v in group.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                work(rank)
                status = 0
            except BaseException:
                os.write(write, traceback.format_exc()[-4000:].encode())
            finally:
                os._exit(status)
        os.close(write)
        children.append((pid, read))
    statuses, tracebacks = [], []
    deadline = time.monotonic() + 240
    for pid, read in children:
        while not (status := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        statuses.append(os.waitstatus_to_exitcode(status[1]))
        with os.fdopen(read) as file:
            tracebacks.append(file.read())
    assert tuple(statuses) == (expect or (0,) * count), "\n".join(tracebacks)


@pytest.fixture(autouse=True)
def one_thread():
    """Forked processes have one thread, and bits may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_states(folder: Path, poll: int = 1) -> None:
    """Make every process write its state after each round as ``folder/RANK.safetensors``."""
    play_round = StageRun.play_round

    def play_and_save(self, *args):
        images = play_round(self, *args)
        save_file(state(self), folder / f"{parallel.rank()}.safetensors")
        return images

    StageRun.play_round = play_and_save
    train.Clock = Every
    train.POLL_ROUNDS = poll


# The few collectives --------------------------------------------------------------------------------------------------


def test_collectives():
    def work(rank):
        parallel.start("cpu")
        assert (parallel.rank(), parallel.world()) == (rank, 2)
        mine = torch.tensor([rank + 1.0, 0.0])
        assert parallel.mean(mine).tolist() == [1.5, 0.0] and mine.tolist() == [rank + 1.0, 0.0]
        assert parallel.gather(torch.tensor([[rank]])).tolist() == [[0], [1]]
        assert parallel.any_true(rank == 1, False) == [True, False]
        module = nn.BatchNorm2d(3)
        module.register_buffer("flag", torch.tensor(rank == 0))
        nn.init.constant_(module.weight, rank + 1.0)
        module.to(memory_format=torch.channels_last)
        parallel.broadcast(module)
        assert module.weight.tolist() == [1.0] * 3 and bool(module.flag)
        images = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last) + rank
        parallel.mean_in_place([images, mine])
        assert torch.equal(images, torch.arange(24.0).reshape(1, 2, 3, 4) + 0.5)
        assert images.is_contiguous(memory_format=torch.channels_last) and mine.tolist() == [1.5, 0.0]
        with parallel.alone():  # for work that the other process does not do
            assert (parallel.rank(), parallel.world()) == (0, 1)
            if rank == 0:
                parallel.barrier()
                assert parallel.mean(mine) is mine and parallel.any_true(False, True) == [False, True]
        parallel.barrier()
        parallel.stop()
        assert parallel.world() == 1

    processes(work)


def as_one_process(build, inputs: list[torch.Tensor], tmp_path) -> None:
    """Two processes with half of the batch each compute what one does with all of it, to 1e-5: outputs, the gradients
    of inputs and weights, buffers. ``build()``: a module whose initial state is the same in every process."""

    def compute(rank, world):
        module, mine = build(), [x.chunk(world)[rank].clone() for x in inputs]
        mine[0].requires_grad_(True)
        for _ in range(2):  # the running averages move twice
            output = module(*mine)
        # each sample has a weight of its own; the loss is the mean over the samples of all processes
        weights = torch.linspace(-1, 2, output.numel() * world).view(-1, *output.shape[1:]).sin().chunk(world)[rank]
        loss = (output * weights + output.pow(3)).mean()
        gradients = torch.autograd.grad(loss, [mine[0], *module.parameters()])
        rows = {"output": output, "input gradient": gradients[0] / world}
        names = [n for n, _ in module.named_parameters()]
        shared = {n: parallel.mean(g.detach()) for n, g in zip(names, gradients[1:], strict=True)}
        shared |= {n: b.float() for n, b in module.named_buffers()}
        return {k: v.detach().contiguous() for k, v in rows.items()}, {k: v.contiguous() for k, v in shared.items()}

    def work(rank):
        parallel.start("cpu")
        rows, shared = compute(rank, 2)
        save_file(rows | shared, tmp_path / f"{rank}.safetensors")

    processes(work)
    parts = [load_file(tmp_path / f"{r}.safetensors") for r in range(2)]
    rows, shared = compute(0, 1)
    for key, value in rows.items():
        torch.testing.assert_close(torch.cat([p[key] for p in parts]), value, atol=1e-5 * value.abs().max(), rtol=0)
    for key, value in shared.items():
        for part in parts:
            torch.testing.assert_close(part[key], value, atol=1e-5 * value.abs().max(), rtol=0)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("sync", [True, False])
def test_batch_norm_of_all_processes(classes, sync, tmp_path):
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(8, 5, 3, 3) * torch.arange(1, 9)[:, None, None, None]
    y = [torch.arange(8) % 3] if classes else []

    def build():
        torch.manual_seed(1)
        norm = BatchNorm2d(5, classes, sync=sync)
        for p in norm.parameters():
            nn.init.normal_(p, 1.0)
        return norm

    if sync:
        as_one_process(build, [x, *y], tmp_path)
    else:  # without it the statistics are those of each process's samples
        with pytest.raises(AssertionError):
            as_one_process(build, [x, *y], tmp_path)


@pytest.mark.parametrize(("group", "maps"), [(4, 1), (None, 1), (2, 2)])
def test_minibatch_standard_deviation_of_all_processes(group, maps, tmp_path):
    torch.manual_seed(0)
    as_one_process(lambda: MinibatchStandardDeviation(group, maps, sync=True), [torch.randn(8, 4, 3, 3)], tmp_path)


def test_minibatch_features_of_all_processes(tmp_path):
    def build():
        torch.manual_seed(1)
        return MinibatchFeatures(6, kernels=4, dims=3, sync=True)

    torch.manual_seed(0)
    as_one_process(build, [torch.randn(8, 6)], tmp_path)


def test_penalties_through_statistics_of_all_processes(tmp_path):
    """The gradient of a gradient, as R1 needs it: each score depends on the samples of all processes."""
    torch.manual_seed(0)
    whole = torch.randn(8, 4, 3, 3)

    def compute(rank, world):
        torch.manual_seed(1)
        layers = [nn.Conv2d(4, 4, 3, padding=1), BatchNorm2d(4, sync=True), MinibatchStandardDeviation(None, sync=True)]
        D = nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(5, 1, 3))
        x = whole.chunk(world)[rank]
        with keep_running_averages(D):
            gradient = torch.func.grad(lambda v: D(v).square().sum())(x)
        penalty = gradient.flatten(1).square().sum(1).mean()
        gradients = torch.autograd.grad(penalty, list(D.parameters()), allow_unused=True)
        names = [n for n, _ in D.named_parameters()]
        values = {n: parallel.mean(g.detach()) for n, g in zip(names, gradients, strict=True) if g is not None}
        return {"penalty": parallel.mean(penalty.detach()), **values}

    def work(rank):
        parallel.start("cpu")
        save_file({k: v.contiguous() for k, v in compute(rank, 2).items()}, tmp_path / f"{rank}.safetensors")

    processes(work)
    first = load_file(tmp_path / "0.safetensors")
    alone = compute(0, 1)
    largest = max(value.abs().max().item() for value in alone.values())  # a bias before batch norm has no gradient
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, atol=1e-5 * largest, rtol=1e-5)


def test_main_process_only():
    """Rank 0 works, alone; an error there is one in the other process too, which does not wait for ever."""

    def work(rank):
        parallel.start("cpu")
        for _ in range(2):
            with parallel.main_process_only() as works:
                assert works == (rank == 0) and (parallel.world() == 1) == works
        parallel.FAILURE_SECONDS = 0.1
        start_time = time.monotonic()
        error, message = (RuntimeError, "rank 0 has failed") if rank else (ValueError, "the disk is full")
        with pytest.raises(error, match=message), parallel.main_process_only() as works:
            if works:
                raise ValueError("the disk is full")
        assert parallel.world() == 2 and time.monotonic() - start_time < 30
        parallel.barrier()
        parallel.stop()

    processes(work)


def test_main_process_only_in_a_group_of_the_user():
    """One process works in a process group that is not the zoo's own, too."""

    def work(rank):
        torch.distributed.init_process_group("gloo")
        parallel.start("cpu")
        with parallel.main_process_only() as works:
            assert works == (rank == 0)
        parallel.stop()

    processes(work)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dcgan-fashion-mnist", "cyclegan-emoji-small"])
def test_ranks_are_bit_equal(name, tmp_path):
    """After training with batch norm, dropout, EMA and image pools, every process has the same bits, batch statistics
    too."""
    recipe = small(name)
    recipe = recipe.replace(ema={**recipe.ema, "G": Ema(halflife=10)}).rescaled(4 * recipe.stages[0].batch)
    source = stand_in(recipe)

    def work(rank):
        save_states(tmp_path)
        train.train(recipe, tmp_path / "run", runtime=CPU, dataset=source)

    processes(work)
    first, second = (load_file(tmp_path / f"{r}.safetensors") for r in range(2))
    assert same(first, second)
    assert same(first, checkpoint.load(tmp_path / "run" / CHECKPOINT)[0])
    assert len(log_of(tmp_path / "run")) == 4


@game
class GateByRank(Duel):
    """The gate differs between processes, and so does dropout."""

    def turns(self):
        return [Turn(("D", "G"), self.both)]

    def both(self, batch):
        gate = torch.tensor(float(batch.rank == 0))
        noisy = nn.functional.dropout(batch["x"], 0.5)
        return {"D": self.D(noisy).square().mean(), "G": (self.loss_G(batch), gate)}


def test_processes_agree_on_a_gate(tmp_path):
    def work(rank):
        run = in_group(lambda: session(recipe(GateByRank.spec, optimizer=Adam(lr=0.01))))
        before = weights(run.game)
        play(run, 3)
        assert moved(before, run.game) == {"D"}  # one of two is not most of them
        save_file(state(run), tmp_path / f"{rank}.safetensors")

    processes(work)
    assert same(*(load_file(tmp_path / f"{r}.safetensors") for r in range(2)))


def in_group(build):
    """Join the group, then call ``build``."""
    parallel.start("cpu")
    return build()


class Linear(nn.Module):
    """Points -> logits of three classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)

    def logits(self, x):
        return self.head(x)


def test_classes_are_balanced_over_all_processes(tmp_path):
    """The mean prediction is that of the joint batch, and so are its gradients."""
    torch.manual_seed(1)
    x, labeled, y = 3 * torch.randn(8, 4), torch.randn(4, 4), torch.tensor([0, 1, 2, 0])

    def loss_and_gradients(rank, world):
        game = GAMES.build(Spec("classification", entropy=0.3, balance=0.3, decay=1e-2), {"C": Linear()})
        batch = Batch(8 // world)
        batch.update(x=x.chunk(world)[rank], labeled=labeled.chunk(world)[rank], y=y.chunk(world)[rank])
        loss = game.loss_C(batch)
        gradients = torch.autograd.grad(loss, game.C.parameters())
        return [parallel.mean(v.detach()) for v in (loss, *gradients)]

    def work(rank):
        parallel.start("cpu")
        save_file(dict(zip("lwb", loss_and_gradients(rank, 2), strict=True)), tmp_path / f"{rank}.safetensors")

    processes(work)
    values = load_file(tmp_path / "0.safetensors")
    for key, value in zip("lwb", loss_and_gradients(0, 1), strict=True):
        torch.testing.assert_close(values[key], value)


def test_labeled_images_count_over_all_processes(tmp_path):
    """The mean over the labeled reals is that of the joint batch, however many of them a process has."""
    torch.manual_seed(1)
    logits, y = torch.randn(8, 3, requires_grad=True), torch.tensor([0, 2, 1, -1, -1, -1, -1, 0])

    def loss_and_gradient(rank, world):
        batch = Batch(8 // world)
        batch.update(y=y.chunk(world)[rank])
        head = HEADS.build(Spec("predicted-class"))
        output = DiscriminatorOutput({}, None, {"D.predictor": logits.chunk(world)[rank]})
        loss = head.loss_D(output, output, batch, None)
        (gradient,) = torch.autograd.grad(loss, logits)
        return [parallel.mean(v.detach()) for v in (loss, gradient)]

    def work(rank):
        parallel.start("cpu")
        save_file(dict(zip("lg", loss_and_gradient(rank, 2), strict=True)), tmp_path / f"{rank}.safetensors")

    processes(work)
    values = load_file(tmp_path / "0.safetensors")
    for key, value in zip("lg", loss_and_gradient(0, 1), strict=True):
        torch.testing.assert_close(values[key], value)


@pytest.mark.parametrize("name", ["duel", "micro", "relative", "matching", "wgan-gp-mnist", "dragan-mnist"])
def test_two_processes_learn_as_one(name, tmp_path):
    """Networks without batch statistics: the gradients of two processes are those of one with the joint batch, to 1e-6,
    and so are the weights after three rounds."""

    def stage_run():
        if name == "duel":
            return session(image_recipe(ema={"G": Ema(halflife=10)}), images())
        if name == "micro":  # the share of each of two processes in two slices
            micro = replace(CPU, micro_batch=2 if parallel.world() > 1 else None)
            return session(image_recipe(ema={"G": Ema(halflife=10)}), images(), runtime=micro)
        if name == "relative":  # relative to a mean over the batch
            return session(image_recipe(Spec("adversarial", loss=Spec("relativistic"))), images())
        if name == "matching":  # means over the batch
            networks = {"G": Spec("test-mlp"), "D": Spec("mlp-discriminator", hidden=(8,))}
            return session(recipe(Spec("adversarial", penalties=(Spec("feature-matching"),)), networks=networks))
        reduced = small(name)
        return session(reduced, stand_in(reduced))

    def gradients_and_state(run):
        gradients = {}
        run.seed_round()
        batch = run.new_batch()
        run.draw(batch)
        for turn in run.learner.turns:
            batch.size = run.stage.batch // parallel.world()
            run.learner.play(turn, batch, 0)
            for player in turn.players:
                parameters = run.learner.players[player].items()
                gradients.update({f"gradient.{player}.{k}": p.grad.clone().contiguous() for k, p in parameters})
        play(run, 3)
        return {**gradients, **state(run)}

    def work(rank):
        save_file(gradients_and_state(in_group(stage_run)), tmp_path / f"{rank}.safetensors")

    processes(work)
    first, second = (load_file(tmp_path / f"{r}.safetensors") for r in range(2))
    alone = gradients_and_state(stage_run())
    assert same(first, second)
    gradients = [k for k in alone if k.startswith("gradient")]
    assert gradients and all(alone[k].abs().max() > 0 for k in gradients if "weight" in k)
    for key, value in alone.items():
        scale = max(1.0, value.abs().max().item())
        assert (value - first[key]).abs().max().item() <= 1e-6 * scale if value.is_floating_point() else True, key


def test_shards_are_disjoint_for_two_nodes_of_two(tmp_path):
    """Four processes, two for each machine: together they read each image once an epoch, in the order of one
    process."""
    x = torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 8, 8).contiguous()
    recipe = image_recipe()

    def rows(run, rounds=4):
        batch, numbers = run.new_batch(), []
        for _ in range(rounds):
            run.draw(batch)
            numbers.append(((batch["x"][:, 0, 0, 0] + 1) * 127.5).round())
        return torch.stack(numbers)  # [rounds, batch]

    def work(rank):
        assert parallel.local_rank() == rank % 2
        save_file({"rows": rows(in_group(lambda: session(recipe, x)))}, tmp_path / f"{rank}.safetensors")

    processes(work, 4, local=2)
    parts = [load_file(tmp_path / f"{r}.safetensors")["rows"] for r in range(4)]
    joint = torch.cat(parts, dim=1)  # [rounds, batch]
    assert torch.equal(joint, rows(session(recipe, x)))
    for epoch in joint.reshape(2, 16):
        assert sorted(epoch.tolist()) == list(range(16))


def test_resume_in_two_processes(tmp_path):
    """One process is killed during the run; both are started again and end as two that were never killed."""
    recipe = small("cyclegan-emoji-small").rescaled(6 * 4)
    source = stand_in(recipe)

    def run(name, kill_round=None):
        def progress(event, **facts):
            if event == "tick" and facts["round"] == kill_round:
                os.kill(os.getpid(), signal.SIGKILL)

        def work(rank):
            (tmp_path / name).mkdir(exist_ok=True)
            save_states(tmp_path / name)
            folder = tmp_path / name / "run"
            if folder.exists() and kill_round is None:
                train.resume(folder, dataset=source)
            else:
                train.train(recipe, folder, runtime=CPU, dataset=source, progress=progress)

        return work

    processes(run("whole"))
    processes(run("cut", 4), expect=(-signal.SIGKILL, 1))
    assert checkpoint.load(tmp_path / "cut" / "run" / CHECKPOINT)[1]["round"] == 3
    processes(run("cut"))
    for r in range(2):
        assert same(
            load_file(tmp_path / "whole" / f"{r}.safetensors"), load_file(tmp_path / "cut" / f"{r}.safetensors")
        )
    assert log_of(tmp_path / "whole" / "run") == log_of(tmp_path / "cut" / "run")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_resume_with_another_number_of_processes(before, after, tmp_path):
    """The images come in the order of one process that was never stopped: none is left out, none comes twice."""
    x = torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 3, 8, 8).contiguous()
    recipe, stop = image_recipe(), 24  # in the second epoch
    recipe = replace(recipe, stages=(replace(recipe.stages[0], batch=8, images=48),))

    def with_numbers(folder, work):
        """``work(rank)``; the images that each round draws are appended to a file of its rank."""

        def recorded(rank):
            original = StageRun.draw

            def draw(self, batch, *arguments):
                rows = original(self, batch, *arguments)
                with open(tmp_path / folder / f"numbers-{rank}", "a") as file:
                    numbers = ((batch["x"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
                    file.write(f"{self.images} {numbers}\n")
                return rows

            StageRun.draw = draw
            work(rank)

        (tmp_path / folder).mkdir(exist_ok=True)
        return recorded

    def joint(folder, count):
        """The numbers of each round, of all processes."""
        by_rank = [(tmp_path / folder / f"numbers-{r}").read_text().splitlines() for r in range(count)]
        rounds: dict[int, list[int]] = {}
        for lines in zip(*by_rank, strict=True):
            for line in lines:
                images, _, numbers = line.partition(" ")
                rounds.setdefault(int(images), []).extend(json.loads(numbers))
        return rounds

    run = tmp_path / "cut" / "run"
    processes(with_numbers("whole", lambda rank: train.train(recipe, tmp_path / "run", runtime=CPU, dataset=x)), 1)
    first = with_numbers("cut", lambda rank: train.train(recipe.rescaled(stop), run, runtime=CPU, dataset=x))
    processes(first, before)
    whole, start = joint("whole", 1), joint("cut", before)
    for file in (tmp_path / "cut").glob("numbers-*"):
        file.unlink()
    processes(with_numbers("cut", lambda rank: train.resume(run, images=48, dataset=x)), after)
    end = joint("cut", after)
    assert {**start, **end} == whole and [*start, *end] == [*whole] == [0, 8, 16, 24, 32, 40]
    assert sorted({*end[24], *whole[16]}) == [*range(16)]  # the second epoch
    assert hub.load(run).card["images"] == 48


@game
class Gathering(Duel):
    """Its ``finish`` contains a collective: the process that exports must not wait for the others."""

    def finish(self, draw):
        self.G.last.bias.copy_(parallel.mean(draw()["x"]).mean(0))


def test_one_process_exports_alone(tmp_path):
    def work(rank):
        save_states(tmp_path)
        train.train(recipe(Gathering.spec), tmp_path / "run", runtime=CPU)

    processes(work)
    assert same(*(load_file(tmp_path / f"{r}.safetensors") for r in range(2)))


def test_signal_to_one_process_stops_all(tmp_path):
    """All stop after the same round."""

    def work(rank):
        save_states(tmp_path, poll=8)

        def progress(event, **facts):
            if event == "tick" and facts["round"] == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if event == "done":
                assert facts["stopped_by"] == "SIGTERM" and facts["images"] == train.POLL_ROUNDS * 8

        train.train(recipe(images=800), tmp_path / "run", runtime=CPU, progress=progress)

    processes(work)
    assert same(*(load_file(tmp_path / f"{r}.safetensors") for r in range(2)))
    assert checkpoint.load(tmp_path / "run" / CHECKPOINT)[1]["round"] == train.POLL_ROUNDS


def test_batch_must_be_a_multiple_of_the_processes(tmp_path):
    """The error comes before any work, for a turn's own batch too."""

    def work(rank):
        for odd, option in ((recipe(batch=9), "batch=9"), (recipe(Odd.spec), "batch=7")):
            with pytest.raises(ValueError, match=f"{option}: must be a multiple of the number of processes, 2"):
                train.train(odd, tmp_path / "run", runtime=CPU)

    processes(work)
    assert not (tmp_path / "run").exists()


@game
class Odd(Duel):
    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, batch=7)]


def test_only_rank_0_records_scalars(tmp_path):
    """The other processes never write a log, so they must not collect scalars for it."""
    long = recipe(images=8 * 30)

    def work(rank):
        names = []
        record = log.Log.record
        log.Log.record = lambda self, round, name, value: (names.append(name), record(self, round, name, value))
        train.train(long, tmp_path / "run", runtime=CPU)
        assert bool(names) == (rank == 0)

    processes(work)


@NETWORKS.register("test-drift")
class Drift(nn.Module):
    """Its first weights differ from process to process, as rounding may differ between machines."""

    def __init__(self):
        super().__init__()
        self.latent, self.layer = 2, nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.bias.fill_(parallel.rank() * 1e-3)

    def forward(self, z):
        return self.layer(z)


def test_processes_start_with_the_same_weights(tmp_path):
    drift = recipe(networks={"G": Spec("test-drift"), "D": Spec("test-mlp", outputs=1)}, ema={"G": Ema(halflife=5)})

    def work(rank):
        run = in_group(lambda: session(drift))
        before = weights(run.game)
        play(run, 2)
        assert moved(before, run.game) == {"G", "D"}
        save_file(state(run), tmp_path / f"{rank}.safetensors")

    processes(work)
    assert same(*(load_file(tmp_path / f"{r}.safetensors") for r in range(2)))


def test_rank_0_fetches_and_computes(own_home, tmp_path):
    """Pretrained weights are downloaded and derived fields computed once; two processes learn what one does."""
    text_encoder = put_weights(tmp_path, ENCODER)
    put_weights(own_home, FEATURES)

    def fetch(source):
        (tmp_path / f"fetched-{os.environ['RANK']}").touch()
        source.path.write_bytes(text_encoder.read_bytes())
        return source.path

    def work(rank):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FolderSource, "fetch", fetch)
            patch.setattr(train, "Clock", Every)
            data = described(path=tmp_path / "train.safetensors")
            train.train(described_recipe(), tmp_path / "run", runtime=CPU, dataset=data)
        parallel.stop()

    processes(work)
    assert [path.name for path in tmp_path.glob("fetched-*")] == ["fetched-0"]
    assert [path.suffix for path in (own_home / "derived").iterdir()] == [".safetensors"]
    train.train(
        described_recipe(), tmp_path / "one", runtime=CPU, dataset=described(path=tmp_path / "train.safetensors")
    )
    two, one = (load_file(tmp_path / run / CHECKPOINT) for run in ("run", "one"))
    assert two.keys() == one.keys() and all(torch.allclose(two[k], one[k], atol=1e-5) for k in one)


def test_layers_of_each_process_draw_numbers_of_their_own(tmp_path):
    """Dropout masks differ between processes; noise is drawn for all of them together."""

    def work(rank):
        run = in_group(lambda: session(recipe()))
        run.seed_round()
        numbers = {"layers": torch.rand(4), "noise": torch.rand(4, generator=run.noise)}
        save_file(numbers, tmp_path / f"{rank}.safetensors")

    processes(work)
    first, second = (load_file(tmp_path / f"{r}.safetensors") for r in range(2))
    assert not torch.equal(first["layers"], second["layers"]) and torch.equal(first["noise"], second["noise"])


def test_clip_is_of_the_joint_gradient(tmp_path):
    """Not of each process's own."""

    def gradients(run):
        play(run)
        return {k: p.grad.clone() for k, p in run.learner.players["D"].items()}

    def build():
        return session(image_recipe(optimizer=SGD(lr=0.1, clip=0.01)), images())

    def work(rank):
        save_file(gradients(in_group(build)), tmp_path / f"{rank}.safetensors")

    processes(work)
    first, alone = load_file(tmp_path / "0.safetensors"), gradients(build())
    for k, v in alone.items():
        torch.testing.assert_close(first[k], v, rtol=1e-4, atol=1e-6)
