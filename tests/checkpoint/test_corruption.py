"""500 ways to damage a checkpoint: none is read."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import about

from asyncrunner.checkpoint import MANIFEST, STATE, read_checkpoint, write_checkpoint
from asyncrunner.errors import CheckpointError

Damage = Callable[[Path, Path, random.Random], object]


def _file(path: Path, chance: random.Random) -> Path:
    return path / chance.choice((MANIFEST, STATE, STATE))


def flip(path: Path, other: Path, chance: random.Random) -> None:
    """Flip 1 to 3 bits of a file."""
    file = _file(path, chance)
    content = bytearray(file.read_bytes())
    for place in chance.sample(range(8 * len(content)), chance.randint(1, 3)):
        content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def truncate(path: Path, other: Path, chance: random.Random) -> None:
    """Cut a file off."""
    file = _file(path, chance)
    os.truncate(file, chance.randrange(file.stat().st_size))


def zero_page(path: Path, other: Path, chance: random.Random) -> None:
    """Make 4 KiB of a file zeros, as a lost page does."""
    file = _file(path, chance)
    content = bytearray(file.read_bytes())
    start = chance.randrange(0, len(content), 4096)
    page = content[start : start + 4096]
    content[start : start + 4096] = bytes(len(page)) if any(page) else b"\xff" * len(page)
    file.write_bytes(content)


def append(path: Path, other: Path, chance: random.Random) -> None:
    """Append to a file."""
    with _file(path, chance).open("ab") as file:
        file.write(chance.choice((b"\0", b"\n", b" ", chance.randbytes(chance.randint(1, 5000)))))


def swap(path: Path, other: Path, chance: random.Random) -> None:
    """Take a file from another checkpoint."""
    name = _file(path, chance).name
    shutil.copy(other / name, path / name)


def lose(path: Path, other: Path, chance: random.Random) -> None:
    """Lose a file."""
    _file(path, chance).unlink()


def add(path: Path, other: Path, chance: random.Random) -> None:
    """Add a file, directory or link."""
    extra = path / chance.choice(("state.pt.bak", "model.pt", "x", "manifest.json~", "data.pkl"))
    chance.choice((extra.touch, extra.mkdir, lambda: extra.symlink_to(STATE)))()


def link(path: Path, other: Path, chance: random.Random) -> None:
    """Replace a file by a link to the same content, or to another's, or to nothing."""
    file = _file(path, chance)
    same = path.parent / f"same {file.name}"
    file.rename(same)
    file.symlink_to(chance.choice((same, other / file.name, path.parent / "nothing")))


def directory(path: Path, other: Path, chance: random.Random) -> None:
    """Replace a file by a directory."""
    file = _file(path, chance)
    file.unlink()
    file.mkdir()


def reorder(path: Path, other: Path, chance: random.Random) -> None:
    """Exchange two blocks of a file: every byte is there, and the size is right."""
    file = _file(path, chance)
    content = bytearray(file.read_bytes())
    half = len(content) // 2
    a, b = chance.randrange(half - 16), chance.randrange(half, len(content) - 16)
    first, second = content[a : a + 16], content[b : b + 16]
    content[a : a + 16], content[b : b + 16] = second, first
    if first != second:
        file.write_bytes(content)
    else:
        flip(path, other, chance)


DAMAGES = (flip, flip, truncate, zero_page, append, swap, lose, add, link, directory, reorder)


def damage_and_read(folder: Path, chance: random.Random, damage: Damage) -> str:
    """Return why a copy that was damaged is refused."""
    path = folder / "damaged"
    shutil.rmtree(folder / "damaged", ignore_errors=True)
    shutil.copytree(folder / "good", path)
    damage(path, folder / "other", chance)
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    for file in folder.glob("same *"):
        file.unlink()
    return str(raised.value)


def corrupt(folder: Path, count: int, seed: int) -> Counter[str]:
    """Return how many damaged checkpoints there were for each reason of refusal."""
    weights = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    for name, iter in (("good", 1), ("other", 2)):
        write_checkpoint(folder / name, {"weights": weights * iter, "iter": iter}, about(iter))
    chance = random.Random(seed)
    reasons: Counter[str] = Counter()
    for n in range(count):
        why = damage_and_read(folder, chance, DAMAGES[n % len(DAMAGES)])
        assert str(folder / "damaged") in why
        reasons[next((reason for reason in REASONS if reason in why), why)] += 1
    assert read_checkpoint(folder / "good")["iter"] == 1
    return reasons


REASONS = (
    f"is damaged: {MANIFEST} is not what was written",
    f"is damaged: {STATE} is not what was written",
    "has files that are not its own: ",
    f"{MANIFEST} is not a regular file",
    f"{STATE} is not a regular file",
    "is incomplete: [Errno 2] No such file or directory",
    "is not a checkpoint: it is not a directory with a manifest.json",
)


def test_none_of_500_damaged_checkpoints_is_read_and_each_refusal_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    reasons = corrupt(tmp_path, 500, seed=2026)
    assert reasons.keys() <= set(REASONS)
    assert reasons.total() == 500
    with capsys.disabled():
        print("\n500 damaged checkpoints, 0 read:")
        for reason, count in reasons.most_common():
            print(f"  {count:4}  {reason}")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(20))
def test_none_of_1000_more_is_read(tmp_path: Path, seed: int):
    assert corrupt(tmp_path, 1000, seed).keys() <= set(REASONS)
