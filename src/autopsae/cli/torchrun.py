"""The processes that torchrun started as one group: each is a rank of one training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from autopsae.arrays import InputError
from autopsae.kernels.ranks import ALONE, ErrorOfAllRanks, Ranks

_WORDS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID")
"""What torchrun tells each process. Other programs set the first ones too, the last one is its own."""
_PATIENCE = timedelta(days=1)
"""How long a rank waits for the others: the first one measures on held-out tokens while they wait."""


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(word in os.environ for word in _WORDS) and os.environ["WORLD_SIZE"] != "1"


def device_of_rank(device: str | None) -> str | None:
    """The device of this rank: "cuda" becomes the GPU of its number on this machine.

    Raises InputError for one GPU for all ranks.
    """
    if device is None or not is_launched() or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise InputError(f"--device: expected cuda, of which each rank takes one GPU, got {device}")
    return f"cuda:{os.environ['LOCAL_RANK']}"


@contextmanager
def ranks_of_torchrun(groups: int = 1) -> Iterator[Ranks]:
    """The ranks that torchrun started, within the context; one process where it started none. groups: as for
    `Ranks.of_group`.

    Tensors in main memory go through gloo, those of GPUs through NCCL. Of an error of all ranks, in the context or
    before it, the first rank tells; the others end with exit code 2 and say nothing.
    """
    if not is_launched():
        if groups != 1:
            raise InputError(
                f"--data-parallel: expected processes that torchrun started, got one process and {groups} groups; "
                "start it with torchrun, or leave the option out"
            )
        yield ALONE
        return
    if not torch.distributed.is_available():
        raise InputError(
            "torchrun: expected a PyTorch with torch.distributed, got one without; install another build"
        )
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backends, timeout=_PATIENCE)
    try:
        yield Ranks.of_group(groups=groups, timeout=_PATIENCE)
    except ErrorOfAllRanks as error:
        if os.environ["RANK"] != "0":
            raise SystemExit(2) from error
        raise
    finally:
        torch.distributed.destroy_process_group()
