"""Several processes: rank, world, and the few collectives that the zoo needs. The only importer of torch.distributed.

With one process every function returns at once and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def start(device: torch.device | str = "cpu") -> None:
    """Join the process group that torchrun describes in the environment; do nothing if there is none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        global _store
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        store, rank, world = next(dist.rendezvous("env://"))
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world)
        _store = dist.PrefixStore("zoo", store)


def stop() -> None:
    """Leave the process group."""
    global _store
    if dist.is_initialized():
        dist.destroy_process_group()
        _store = None


_alone = False
_store: dist.Store | None = None  # rank 0 sets a key in it at the end of its own work
_blocks = 0  # of main_process_only so far
WAIT_SECONDS = 0.02
FAILURE_SECONDS = 5.0  # from an error of rank 0 to that of the others: its message should come first


@contextlib.contextmanager
def main_process_only() -> Iterator[bool]:
    """A block in which only rank 0 works: it yields True there and False elsewhere.

    All processes must enter it at the same point. The others wait for its end outside of any collective, so that they
    do not run into the backend's time-out, however long it takes; in a process group that :func:`start` did not open
    they wait at a barrier. Raises RuntimeError in the others if rank 0's block raises an error.
    """
    global _blocks
    if world() == 1:
        yield True
        return
    _blocks += 1
    key, state = f"done/{_blocks}", "failed"
    if rank() == 0:
        try:
            with alone():
                yield True
            state = "done"
        finally:
            if _store is not None:
                _store.set(key, state)
    else:
        yield False
        while _store is not None and not _store.check([key]):
            time.sleep(WAIT_SECONDS)
        if _store is not None and _store.get(key) == b"failed":
            time.sleep(FAILURE_SECONDS)
            raise RuntimeError("rank 0 has failed; see its error")
    dist.barrier()  # the store ends with rank 0: all must have read it before


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process counts as the only one: collectives return at once, without the others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def local_rank() -> int:
    """This process's number on its machine: the index of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def barrier() -> None:
    """Wait until all processes are here."""
    if world() > 1:
        dist.barrier()


def share(name: str, text: str) -> str:
    """Rank 0's ``text`` in every process. ``name``: of this use, another for each."""
    if world() == 1 or _store is None:
        return text
    if rank() == 0:
        _store.set(f"share/{name}", text)
    barrier()
    return _store.get(f"share/{name}").decode()


def mean(value: Tensor) -> Tensor:
    """The elementwise mean over processes, without gradient. A new tensor if there are several."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world()


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return mean(value)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return mean_with_gradient(gradient)  # the losses of all processes depend on this one's value


def mean_with_gradient(value: Tensor) -> Tensor:
    """The elementwise mean over processes, with gradient: each value contributes to the losses of all processes."""
    if world() == 1:
        return value
    result: Tensor = _Mean.apply(value)
    return result


def any_true(*flags: bool) -> list[bool]:
    """For each flag whether it is true in any process. All processes must call this at the same point."""
    if world() == 1:
        return list(flags)
    values = torch.tensor([float(f) for f in flags], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [value > 0 for value in values.tolist()]


def gather(value: Tensor) -> Tensor:
    """The tensors of all processes concatenated along dimension 0, in order of rank, without gradient."""
    if world() == 1:
        return value
    value = value.detach().contiguous()
    parts = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(parts, value)
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return gather(value)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        # The losses of all processes depend on this one's rows: the sum of what they say of these.
        return (mean_with_gradient(gradient.contiguous()) * world()).chunk(world())[rank()]


def gather_with_gradient(value: Tensor) -> Tensor:
    """As :func:`gather`, with gradient: the rows of each process contribute to the losses of all of them."""
    if world() == 1:
        return value
    result: Tensor = _Gather.apply(value)
    return result


def broadcast(module: nn.Module) -> None:
    """Copy rank 0's parameters and buffers to every process."""
    if world() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            # gloo does not support bool, and collectives need contiguous tensors
            flat = tensor.detach().to(torch.uint8 if tensor.dtype == torch.bool else tensor.dtype).contiguous()
            dist.broadcast(flat, 0)
            tensor.detach().copy_(flat)


@torch.no_grad()
def mean_in_place(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its elementwise mean over processes, with one collective for all of them."""
    tensors = list(tensors)
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    flat /= world()
    start = 0
    for t in tensors:
        t.copy_(flat[start : start + t.numel()].view(t.shape))  # in place: the tensor keeps its memory layout
        start += t.numel()


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of a turn by their mean over processes, in place, with one flat all-reduce."""
    mean_in_place([p.grad for p in parameters if p.grad is not None])
