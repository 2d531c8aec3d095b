"""``--nproc N``: the same command in N processes of this machine, by torchrun's launcher."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

import click


def launched() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def start_code() -> str:
    """Python code of the command line with this process's module path: the current folder, in which anybody's
    ``click.py`` may be, is on it only if it is on this one's."""
    return f"import sys; sys.path[:] = {sys.path!r}; from zoo.cli import main; main()"


def run(count: int, args: Sequence[str]) -> None:
    """``zoo ARGS`` in ``count`` processes. Exits with the status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes print their errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    sys.stdout.flush()
    try:
        elastic_launch(config, sys.executable)("-P", "-c", start_code(), *args)
    except ChildFailedError as error:
        first = error.get_first_failure()[1]
        raise click.exceptions.Exit(first.exitcode if first.exitcode > 0 else 1) from None
    except SignalException as error:
        raise click.exceptions.Exit(128 + error.sigval) from None
