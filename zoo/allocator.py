"""The C library's memory for tensors on CPU."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def reuse_memory() -> bool:
    """From now on memory that is freed stays with the process, for its next tensors. Returns whether the C library
    (glibc) can do it.

    By default glibc maps each block of 32 MB or more (at the start of less) by itself and gives it back when it is
    freed, and the kernel clears every page of the next one: scoring images, and training on large ones, spent up to
    half of their time on that.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
