"""Deleting old checkpoints by hand, of a run that is not on."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, ConfigurationError
from .manifest import Found, Rule, find_checkpoints, verify
from .retention import clean_up, delete, leftovers, ranked, rule_of

__all__ = ["Pruned", "prune"]


@dataclass
class Pruned:
    """What was deleted, or would be."""

    deleted: list[Found] = field(default_factory=list[Found])
    """The checkpoints, oldest first."""
    kept: list[Found] = field(default_factory=list[Found])
    """Those that stay, newest first."""
    damaged: dict[Path, str] = field(default_factory=dict[Path, str])
    """What is left alone because it cannot be read, and why."""
    leftovers: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Name and size in bytes of what a killed process left half done, and is of no use."""
    restored: list[str] = field(default_factory=list[str])
    """The names of those that a killed process had put aside, to replace them."""

    @property
    def size_bytes(self) -> int:
        """The size of all that was deleted."""
        return sum(f.manifest.size_bytes for f in self.deleted) + sum(s for _, s in self.leftovers)


def prune(
    folder: Path,
    *,
    keep: int,
    keep_best: int | None = None,
    rule: Rule | None = None,
    manual: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Delete old checkpoints; the newest one that is intact always stays.

    Nobody else may be writing in the folder.

    Args:
        folder: The run's folder of checkpoints.
        keep: How many regular ones stay, the newest.
        keep_best: How many best ones of each metric stay; None for all.
        rule: Whether greater or less is better; None is as it was when they were saved.
        manual: Whether those that somebody asked for count as regular.
        dry_run: Only say what would be deleted.

    Raises:
        ConfigurationError: If a number is below 1, or a metric's name does not tell the rule.
        CheckpointError: If one cannot be deleted.
    """
    if min(keep, keep if keep_best is None else keep_best) < 1:
        raise ConfigurationError(f"at least 1 must stay, got keep={keep}, keep_best={keep_best}")
    left = leftovers(folder)
    restored = [at.name for _, at in left if at is not None]
    sizes = {path: _size(path) for path, at in left if at is None}
    if not dry_run:
        clean_up(folder)
        sizes = {path: size for path, size in sizes.items() if not path.exists()}
    found, damaged = find_checkpoints(folder)
    gone = _old(found, keep, manual=manual)
    if keep_best is not None:
        gone += _worse(found, keep_best, rule)
    intact = _newest_intact(found) if gone else None
    gone = sorted((f for f in gone if f.path != intact), key=lambda f: f.manifest.order)
    if not dry_run:
        _delete(gone)
    kept = [f for f in found if f not in gone]
    useless = [(path.name, size) for path, size in sizes.items()]
    return Pruned(gone, kept, damaged, useless, restored)


def _old(found: list[Found], keep: int, *, manual: bool) -> list[Found]:
    purposes = ("regular", "manual") if manual else ("regular",)
    return [f for f in found if f.manifest.purpose in purposes][keep:]


def _worse(found: list[Found], keep: int, rule: Rule | None) -> list[Found]:
    gone: list[Found] = []
    best = [f for f in found if f.manifest.purpose == "best"]
    for metric in sorted({f.manifest.metric for f in best}):
        # One whose value is not known is none of the best.
        same = [f for f in best[::-1] if f.manifest.metric == metric]
        known = [f for f in same if metric in f.manifest.metrics]
        stored = known[0].manifest.rule if known else None
        kept = ranked(known, metric, rule or stored or rule_of(metric))[:keep]
        gone += [f for f in same if f not in kept]
    return gone


def _newest_intact(found: list[Found]) -> Path | None:
    for one in found:
        try:
            verify(one.path)
        except CheckpointError:
            continue
        return one.path
    return None


def _delete(gone: list[Found]) -> None:
    for one in gone:
        try:
            delete(one.path)
        except OSError as error:
            raise CheckpointError(f"checkpoint {one.path} cannot be deleted: {error}") from error


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
