"""Several processes: rank, world, and the few collectives the zoo needs. The only importer of torch.distributed.

With one process every function here is free and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: torch.device | str = "cpu") -> None:
    """Join the group that torchrun describes in the environment (nothing where it describes none)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        global _store
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        store, rank, world = next(dist.rendezvous("env://"))
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world)
        _store = dist.PrefixStore("zoo", store)


def stop() -> None:
    global _store
    if dist.is_initialized():
        dist.destroy_process_group()
        _store = None


_alone = False
_store: dist.Store | None = None  # where rank 0 says that its own work is done
_works = 0  # how often the others have waited for it
WAIT_SECONDS = 0.02


@contextlib.contextmanager
def main_process_only() -> Iterator[bool]:
    """A block in which only rank 0 works (True there). All processes must enter it at the same point. The others wait
    for its end outside of any collective, so that no time-out of the backend ends them, however long it takes."""
    global _works
    if world() == 1 or _store is None:
        yield True
        return
    _works += 1
    key = f"done/{_works}"
    if rank() == 0:
        with alone():
            yield True
        _store.set(key, "1")
    else:
        yield False
        while not _store.check([key]):
            time.sleep(WAIT_SECONDS)
    dist.barrier()  # nobody ends, and takes the store along, before all have read it


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does without the others: what it runs may hold collectives that they don't take part in."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def mean(value: Tensor) -> Tensor:
    """The mean over processes, elementwise. Gives a new tensor."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world()


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return mean(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return mean(gradient)  # every process's loss depends on this one's value


def mean_with_gradient(value: Tensor) -> Tensor:
    """The mean over processes, elementwise, through which each of them learns, as its value has a part in all their losses."""
    return value if world() == 1 else _Mean.apply(value)


def any_true(*flags: bool) -> list[bool]:
    """For each flag whether any process has set it: all processes must ask at the same point."""
    if world() == 1:
        return list(flags)
    values = torch.tensor([float(f) for f in flags], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [value > 0 for value in values.tolist()]


def gather(value: Tensor) -> Tensor:
    """The processes' tensors joined along dimension 0, in order of rank. Without gradient."""
    if world() == 1:
        return value
    value = value.detach().contiguous()
    parts = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(parts, value)
    return torch.cat(parts)


def broadcast(module: nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if world() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            # gloo sends no bools, and a collective wants its tensor contiguous
            flat = tensor.detach().to(torch.uint8 if tensor.dtype == torch.bool else tensor.dtype).contiguous()
            dist.broadcast(flat, 0)
            tensor.detach().copy_(flat)


@torch.no_grad()
def mean_in_place(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over processes, with one collective for all of them."""
    tensors = list(tensors)
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    flat /= world()
    at = 0
    for t in tensors:
        t.copy_(flat[at : at + t.numel()].view(t.shape))  # into the tensor that is there: its layout stays
        at += t.numel()


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """One flat all-reduce of a turn's gradients, copied back into the existing ``.grad``."""
    mean_in_place([p.grad for p in parameters if p.grad is not None])
