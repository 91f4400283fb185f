"""Saves checkpoints while training goes on: by epochs, iterations and time, at the end, and the best.

What it does is MMEngine's CheckpointHook; what differs: a checkpoint that is to be deleted is deleted
only after the new one is on the disk, a run that is stopped saves before it ends, best checkpoints
can be resumed from, and several of them may be kept. After an error nothing is saved: what raised
it may be in the weights.
"""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path

from ..bus import Bus
from ..checkpoint.export import check_safetensors
from ..checkpoint.manifest import Manifest, Rule
from ..checkpoint.retention import LATEST, clean_up, rule_of
from ..checkpoint.saver import OnError
from ..delivery.interval import Interval
from ..errors import ConfigurationError
from .saving import Ask, Saving

__all__ = ["Checkpointer", "checkpointing"]

Best = str | Sequence[str] | Mapping[str, Rule]

_PRIORITY = "VERY_LOW"  # after those that change what is saved


class Checkpointer:
    """Saves checkpoints, and deletes those that newer or better ones replace.

    Args:
        every: When: `20` or `"20it"` is every 20 iterations, `"2ep"` every second epoch, `"300s"`
            every five minutes, `"0.1run"` ten times in the run; or several of them.
        begin: Not before so many epochs or iterations are completed, and counted from there on; what
            is saved by time or by parts of the run is not affected.
        last: Save at the end too, also when the run is stopped.
        max_keep: How many regular ones stay, the newest; None for all.
        best: The metric whose best value is saved, such as `"val/accuracy"`; several; a dict that
            says for each whether `"greater"` or `"less"` is better; or `"auto"`, the first one.
        keep_best: How many of the best stay, for each metric.
        folder: Where; `checkpoints` in the run directory if not given, else a folder in this one that
            has the run directory's name.
        filename: The name of a regular one, as in `"{run}-{iter}"`; it may use `run`, `attempt`,
            `epoch`, `iter` and `batch`. If not given it is `epoch_3`, or `iter_70` within an epoch.
        publish: When training has ended, but not by a signal, write the weights alone of the newest
            and of the best ones, as `weights/<name>-<first 8 digits of the file's SHA-256>.safetensors`
            beside the checkpoints; if these are in a `folder`, its name is before `-weights`.
        on_error: What a failed save does: `"raise"` ends the run, `"log"` goes on without it.
        name: Tells several apart; each deletes its own only.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    def __init__(
        self,
        every: int | str | Iterable[int | str] = ("1ep", "600s"),
        *,
        begin: int = 0,
        last: bool = True,
        max_keep: int | None = 3,
        best: Best = (),
        keep_best: int = 1,
        folder: str | Path | None = None,
        filename: str | None = None,
        publish: bool = False,
        on_error: OnError = "raise",
        name: str = "checkpointer",
    ) -> None:
        given = (every,) if isinstance(every, int | str) else tuple(every)
        self.intervals = [_interval(one) for one in given]
        self.begin = _at_least(0, begin=begin)
        self.last = last
        self.max_keep = None if max_keep is None else _at_least(1, max_keep=max_keep)
        self.is_auto = best == "auto"
        self.rules: dict[str, Rule] = {} if self.is_auto else _rules(best)
        self.keep_best = _at_least(1, keep_best=keep_best)
        self.filename = None if filename is None else _checked(filename)
        self.publish = publish
        self.on_error: OnError = on_error
        self.name = name
        if publish:
            check_safetensors()
        self._folder = None if folder is None else Path(folder)

    def folder(self, run_dir: Path | None) -> Path:
        """Return where it saves.

        Raises:
            ConfigurationError: If there is neither a run directory nor a folder.
        """
        if self._folder is not None:
            return self._folder if run_dir is None else self._folder / run_dir.resolve().name
        if run_dir is None:
            raise ConfigurationError(
                "a Checkpointer needs a place: give the Runner a run_dir=, or it a folder="
            )
        return run_dir / "checkpoints"

    def weights_folder(self, folder: Path) -> Path:
        """Return where weights alone are written, beside its folder of checkpoints."""
        # Many runs may share what a folder given to it is in.
        return folder.with_name("weights" if self._folder is None else f"{folder.name}-weights")

    def clashes_with(self, other: "Checkpointer") -> bool:
        """Whether the two, in one folder, would give two checkpoints one name."""
        both_regular = self._saves_regular and other._saves_regular
        return (
            (both_regular and self.filename == other.filename)
            or (self.is_auto and other.is_auto)
            or not self.rules.keys().isdisjoint(other.rules)
        )

    @property
    def _saves_regular(self) -> bool:
        return self.last or bool(self.intervals)

    @contextmanager
    def attached(self, bus: Bus, ask: Ask, folder: Path) -> Generator[None]:
        """Save what is due in this block; what a killed process left half done is finished first."""
        clean_up(folder)
        saving = Saving(self, ask, folder)
        subscriptions = [
            bus.subscribe(event_type, method, priority=_PRIORITY, every=every, name=self.name)
            for event_type, method, every in saving.subscribers()
        ]
        try:
            yield
        finally:
            for subscription in subscriptions:
                subscription.cancel()
            saving.close()

    def file_name(self, about: Manifest) -> str:
        """Return the name of a regular checkpoint."""
        if self.filename is None:
            return about.default_name
        return self.filename.format_map(_fields(about))


def _interval(given: int | str) -> Interval:
    interval = Interval.parse(given)
    return Interval(interval.n, interval.unit or "it")


def _at_least(least: int, **given: object) -> int:
    ((option, value),) = given.items()
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{option} must be an int from {least}, got {value!r}")
    return value


def _rules(best: Best) -> dict[str, Rule]:
    if not isinstance(best, Mapping):
        return {metric: rule_of(metric) for metric in ([best] if isinstance(best, str) else best)}
    for metric, rule in best.items():
        if rule not in ("greater", "less"):
            raise ConfigurationError(
                f"best: the rule of {metric!r} must be 'greater' or 'less', got {rule!r}"
            )
    return dict(best)


def _fields(about: Manifest) -> dict[str, object]:
    return {name: getattr(about, name) for name in ("run", "attempt", "epoch", "iter", "batch")}


def _checked(template: str) -> str:
    try:
        name = template.format_map(_fields(Manifest(run="run")))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"filename may use {{run}}, {{attempt}}, {{epoch}}, {{iter}} and {{batch}}, "
            f"got {template!r}: {error}"
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9][\w.=+-]*", name, re.ASCII):
        raise ConfigurationError(
            f"filename must give letters, digits, '.', '_', '=', '+' and '-', got {template!r}"
        )
    if name == LATEST:
        raise ConfigurationError(f"filename must not be {LATEST!r}: that leads to the newest one")
    return template


@contextmanager
def checkpointing(
    checkpointers: Sequence[Checkpointer], bus: Bus, ask: Ask, run_dir: Path | None
) -> Generator[None]:
    """Have them save in this block.

    Raises:
        ConfigurationError: If two have one name, or would save under one; or one has no place.
    """
    names = [checkpointer.name for checkpointer in checkpointers]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"checkpointers need names of their own, got {names}")
    folders = [checkpointer.folder(run_dir) for checkpointer in checkpointers]
    placed = list(zip(checkpointers, folders, strict=True))
    for (one, folder), (other, its_folder) in combinations(placed, 2):
        if folder == its_folder and one.clashes_with(other):  # one would delete the other's
            raise ConfigurationError(
                f"the checkpointers {one.name!r} and {other.name!r} would save under the same names "
                f"in {folder}: give one of them a filename= or a folder= of its own"
            )
    with ExitStack() as attached:
        for checkpointer, folder in placed:
            attached.enter_context(checkpointer.attached(bus, ask, folder))
        yield
