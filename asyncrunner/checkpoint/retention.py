"""Which checkpoints to keep, the `latest` pointer, and the names under which nothing is visible.

Next to `epoch_3` there may be, all of them hidden and cleared away when the next run begins:

    .epoch_3.41.tmp     being written by process 41
    .epoch_3.old        the one before, while another takes its place
    .epoch_3.gone       being deleted
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigurationError
from ..run_dir.files import sync_directory
from .manifest import MANIFEST, Found, Rule

LATEST = "latest"
"""The name of the link to the newest regular checkpoint."""

_GREATER = {
    "aacc", "acc", "accuracy", "ap", "ar", "auc", "auroc", "bleu", "dice", "f1", "iou", "macc", "map",
    "mdice", "miou", "precision", "psnr", "r2", "recall", "ssim",
}  # fmt: skip
_LESS = {
    "bpb", "cer", "err", "error", "fid", "loss", "mae",
    "mape", "mse", "nll", "perplexity", "ppl", "rmse", "wer",
}  # fmt: skip

_HIDDEN = re.compile(r"\.(?P<name>.+)\.(?:\d+\.tmp|old|gone)")


def building_name(name: str) -> str:
    """Return the name of a checkpoint's directory while it is written."""
    return f".{name}.{os.getpid()}.tmp"


def replaced_name(name: str) -> str:
    """Return the name of the old one while the new one takes its place."""
    return f".{name}.old"


def superfluous(
    found: Collection[Found],
    *,
    by: str,
    max_keep: int | None,
    best_k: int,
    rules: dict[str, Rule],
) -> list[Found]:
    """Return which of a checkpointer's own to delete, oldest or worst first.

    The newest regular one, and the best one of each metric, are never among them; NaN is never best.

    Args:
        found: All that there are.
        by: Whose they must be.
        max_keep: How many regular ones stay; None for all.
        best_k: How many of the best stay, for each metric.
        rules: By metric, whether greater or less is better.
    """
    own = sorted((f for f in found if f.manifest.by == by), key=lambda f: f.manifest.order)
    regular = [f for f in own if f.manifest.purpose == "regular"]
    gone = [] if max_keep is None else regular[: -max(1, max_keep)]
    for metric, rule in rules.items():
        best = [f for f in own if f.manifest.purpose == "best" and f.manifest.metric == metric]
        gone += ranked(best, metric, rule)[max(1, best_k) :][::-1]
    return gone


def ranked(found: Sequence[Found], metric: str, rule: Rule) -> list[Found]:
    """Return them best first; of equals the older one comes first, and what has no number last."""
    sign = -1 if rule == "greater" else 1

    def rank(one: Found) -> tuple[bool, float, tuple[object, ...]]:
        value = one.manifest.metrics.get(metric, math.nan)
        is_nan = math.isnan(value)
        return is_nan, 0.0 if is_nan else sign * value, one.manifest.order

    return sorted(found, key=rank)


def rule_of(metric: str, *, say: str | None = None) -> Rule:
    """Return whether greater or less is better, by the words in the metric's name.

    MMEngine looks for parts of words, and so finds `top` in `stop`.

    Args:
        metric: The metric's name.
        say: How to say it, for the error; if not given, as for a `Checkpointer`.

    Raises:
        ConfigurationError: If the name does not tell.
    """
    words = _words(metric)
    is_less = any(word in _LESS or word.endswith("loss") for word in words)
    is_greater = bool(words & _GREATER)
    if is_less != is_greater:
        return "less" if is_less else "greater"
    if not is_less and "top" in words:  # of top1_err less is better
        return "greater"
    say = say or f"best={{{metric!r}: 'greater'}} or 'less', or --rule on the command line"
    raise ConfigurationError(f"is more or less of {metric!r} better? Say so: {say}")


def _words(metric: str) -> set[str]:
    """Return the words of `bbox_mAP50` and `valLoss`, in lower case and without numbers too."""
    words = {word.lower() for word in re.findall("[A-Za-z0-9]+", metric)}
    words |= {word.lower() for word in re.findall("[A-Z]?[a-z]{2,}|[A-Z]{2,}", metric)}
    return words | {word.rstrip("0123456789") for word in words}


def point_latest(folder: Path, name: str) -> None:
    """Have `latest` in the folder lead to the checkpoint of this name.

    Raises:
        OSError: If the link cannot be made; the old one stays.
    """
    link = folder / f".{LATEST}.{os.getpid()}.tmp"
    remove(link)
    try:
        link.symlink_to(name)
        os.replace(link, folder / LATEST)
    except OSError:
        remove(link)
        raise
    sync_directory(folder)


def delete(path: Path) -> None:
    """Delete a checkpoint: at once it is no checkpoint any more, and then its files go.

    Raises:
        OSError: If it cannot be renamed.
    """
    gone = path.with_name(f".{path.name}.gone")
    remove(gone)
    path.rename(gone)
    remove(gone)


def put_aside(path: Path) -> None:
    """Make room for a checkpoint of the same name; `clean_up` would bring the old one back.

    Raises:
        OSError: If it cannot be renamed, or is not a checkpoint: that would be deleted later.
    """
    if path.is_symlink() or path.exists():
        if path.is_symlink() or not _may_be_checkpoint(path):
            raise FileExistsError(f"what is there is not a checkpoint: {path}")
        replaced = path.with_name(replaced_name(path.name))
        remove(replaced)
        path.rename(replaced)


def put_back(building: Path, path: Path) -> None:
    """Undo as much as can be undone of putting a new one in the place of an old one."""
    replaced = path.with_name(replaced_name(path.name))
    with contextlib.suppress(OSError):
        if not building.exists():
            path.rename(building)
    with contextlib.suppress(OSError):
        if replaced.exists() and not path.exists():
            replaced.rename(path)


def _may_be_checkpoint(path: Path) -> bool:
    # A damaged one may have lost its manifest, and is replaced too.
    return path.is_dir() and (
        (path / MANIFEST).exists() or all(file.suffix == ".pt" for file in path.iterdir())
    )


def remove(path: Path) -> None:
    """Remove a file or directory, if it is there and can be removed."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class Leftover(NamedTuple):
    """What a killed process left half done."""

    path: Path
    """Where it is, hidden."""
    restored: Path | None
    """Where it belongs, if it was put aside for another that never came; else it is of no use."""


def leftovers(folder: Path) -> list[Leftover]:
    """Return what a killed process left half done in a folder of checkpoints."""
    found: list[Leftover] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _HIDDEN.fullmatch(path.name):
            at = folder / match["name"]
            is_needed = path.name.endswith(".old") and not at.exists()
            found.append(Leftover(path, at if is_needed else None))
    return found


def clean_up(folder: Path) -> None:
    """Finish what a killed process left half done; nobody else may be writing there."""
    for path, restored in leftovers(folder):
        if restored is None:
            remove(path)
        else:
            path.rename(restored)
            sync_directory(folder)
