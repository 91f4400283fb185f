"""The garbage collector's rest."""

import gc
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from faults import injected

from asyncrunner.checkpoint import write_checkpoint
from asyncrunner.checkpoint.garbage import Rest
from asyncrunner.checkpoint.staging import Staging
from asyncrunner.errors import CheckpointError

MANY = {str(n): torch.zeros(1) for n in range(2000)}


@pytest.fixture(params=[True, False], ids=["collecting", "off"])
def is_enabled(request: pytest.FixtureRequest) -> Generator[bool]:
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_after_a_rest_the_collector_is_as_before(is_enabled: bool):
    with Rest() as rest:
        assert not gc.isenabled()
        with Rest():
            pass
        assert not gc.isenabled()
        rest.end()
        assert gc.isenabled() == is_enabled
    assert gc.isenabled() == is_enabled


def test_a_rest_that_ended_does_not_end_what_others_did_later():
    with Rest() as rest:
        rest.end()
        gc.disable()
    assert not gc.isenabled()
    gc.enable()


def test_after_copying_and_after_an_error_the_collector_is_as_before(
    tmp_path: Path, is_enabled: bool
):
    Staging().take(MANY)
    with pytest.raises(NotImplementedError):
        Staging().take({"x": torch.ones(1, device="meta")})
    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "wrong", {"x": lambda: None})
    write_checkpoint(tmp_path / "right", MANY)
    assert gc.isenabled() == is_enabled


def test_nothing_is_collected_while_tensors_are_described(tmp_path: Path):
    collections: list[str] = []
    seen: list[int] = []

    def watch(phase: str, info: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(watch)
    try:
        with injected(tmp_path) as fault:
            fault.echo = lambda line: seen.append(len(collections)) if "state.pt" in line else None
            write_checkpoint(tmp_path / "many", MANY)
    finally:
        gc.callbacks.remove(watch)
    assert seen[0] == seen[1]  # from opening the file to its first byte
