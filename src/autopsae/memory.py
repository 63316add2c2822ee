"""The memory that is free, and a refusal of work that would not fit: a process that is killed says nothing."""

from pathlib import Path

import torch

from autopsae.arrays import InputError

SMALL = 2**28
"""Bytes that are taken without asking how many are free."""

_MEMINFO = Path("/proc/meminfo")  # of Linux


def check_memory(needed: int, device: torch.device, what: str, otherwise: str) -> None:
    """InputError where `needed` bytes are more than are free on the device; nothing where the system does not tell.

    what: needs them, for the message; otherwise: what to try.
    """
    if needed <= SMALL:
        return
    try:
        free = available_bytes(device)
    except InputError:  # the system does not tell
        return
    if needed > free:
        raise InputError(
            f"expected {needed / 2**30:.1f} GiB of free memory {what}, got {free / 2**30:.1f}; {otherwise}"
        )


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; in main memory, what could be freed for a process, or what a container
    allows if that is less.

    Raises InputError where the system does not tell.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [bytes for bytes in (_of_system(), _of_container()) if bytes is not None]
    if not free:
        raise InputError("memory: expected a system that tells how much is free, got none; say how much to take")
    return min(free)


def _of_system() -> int | None:
    if _MEMINFO.exists():
        [line] = [
            line for line in _MEMINFO.read_text(encoding="utf-8").splitlines() if line.startswith("MemAvailable")
        ]
        return int(line.split()[1]) * 1024
    try:  # macOS, Windows and others, where it is one of our dependencies
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _of_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        return max(0, limit - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
