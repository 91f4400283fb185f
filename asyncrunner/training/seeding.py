"""Random numbers that come out the same again."""

import contextlib
import os
import random
import sys
from collections.abc import Generator

import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's (if it is used) and PyTorch's generators, on every device.

    DataLoader workers derive theirs from PyTorch's.
    """
    random.seed(seed)
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Generator[None]:
    """Have PyTorch use deterministic algorithms only, and put its settings back afterwards."""
    if not wanted:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    # cuBLAS needs this for reproducible results, and reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
