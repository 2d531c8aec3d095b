"""Memory is used again."""

import subprocess
import sys

import pytest

from zoo.allocator import reuse_memory

COUNT_PAGES = """
import resource
import sys
import torch
from zoo.allocator import reuse_memory

if "reuse" in sys.argv:
    assert reuse_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(16_000_000)  # 64 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not reuse_memory(), reason="the C library is not glibc")
def test_freed_blocks_are_used_again():
    """Of 100 large tensors one after another only the first few need new pages."""

    def pages(*arguments: str) -> int:
        command = [sys.executable, "-c", COUNT_PAGES, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert pages("reuse") < pages() / 5
