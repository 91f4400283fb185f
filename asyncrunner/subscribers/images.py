"""Pictures of batches and predictions, drawn and written beside training."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary, ref

from asyncrunner_events import AfterValIter, Event, ImageSaved

from ..errors import ConfigurationError
from ..run_dir.files import write_atomically
from .pictures import grid_of, pictures_in, pillow, png_of

if TYPE_CHECKING:
    from ..bus import Bus
    from ..training.attachment import Attachment

__all__ = ["Images"]

# Weakly both ways: an Images knows its run, and that the bus, which would live for ever.
_owners: "WeakKeyDictionary[Bus, dict[Path, ref[Images]]]" = WeakKeyDictionary()


class Images:
    """Writes what a function draws of some events as PNG files, and publishes `ImageSaved`.

    The function is called in a thread of its own, with snapshots of what the event holds: training
    waits for their copy and for nothing else. If it cannot keep up, the oldest of `queue` events that wait is
    left out, and counted. What it raises is logged, and training goes on.

    A file is `run_dir/images/<tag>/iter_<iter>.png`, with the place of the batch in the name where it
    is one of a validation or a test.

    Args:
        draw: Returns a picture or several, see `pictures_in`; those of a dict are each written
            under `tag/name`. None is nothing to show.
        on: The event type.
        every: At every how many of them: `every=50`, or `"1ep"` for the first of each epoch.
        tag: The name of the series; the data set's name, or "train", if not given.
        keep: Which live fields the function needs; all that the event has of `batch` and `outputs`
            if not given.
        most: So many pictures of one event at most.
        columns: Pictures in a row.
        queue: So many events, with their snapshots, wait at most.
        folder: Where to write, in place of the run directory's.

    Two that write the same series are an error of the second one, when it first draws: it is
    reported as `SubscriberFailed`, and the first goes on.

    Raises:
        ConfigurationError: If a tag is no name for files.
    """

    def __init__(
        self,
        draw: Callable[[Any], Any],
        *,
        on: type[Event] = AfterValIter,
        every: int | str = "1ep",
        tag: str | None = None,
        keep: tuple[str, ...] | None = None,
        most: int = 16,
        columns: int | None = None,
        queue: int = 4,
        folder: str | Path | None = None,
    ) -> None:
        self._draw = draw
        self._on = on
        self._every = every
        self._tag = None if tag is None else _checked(tag)
        self._keep = tuple(sorted({"batch", "outputs"} & on.live_fields)) if keep is None else keep
        self._most = most
        self._columns = columns
        self._queue = queue
        self._folder = None if folder is None else Path(folder)

    def attach(self, run: "Attachment") -> None:
        """Subscribe in the background.

        Raises:
            ConfigurationError: If Pillow is not there.
        """
        pillow()
        self._run = run
        self._subscription = run.subscribe(
            self._on,
            self._see,
            every=self._every,
            mode="background",
            keep=self._keep,
            queue=self._queue,
        )

    def _see(self, event: Event) -> None:
        drawn = self._draw(event)
        tag = self._tag or _checked(getattr(event, "dataset", event.stage or "images"))
        if drawn is None:
            return
        if not isinstance(drawn, Mapping):
            self._write(event, tag, drawn)
            return
        for name, images in cast("Mapping[Any, Any]", drawn).items():
            self._write(event, f"{tag}/{_checked(str(name))}", images)

    def _write(self, event: Event, tag: str, images: Any) -> None:
        pictures = pictures_in(images)[: self._most]
        if not pictures:
            return
        path = self._own(self._where() / tag) / f"{_name_of(event)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png_of(grid_of(pictures, self._columns)))
        saved = ImageSaved(
            path=str(path),
            tag=tag,
            batch_idx=getattr(event, "batch_idx", None),
            epoch=event.epoch,
            iter=event.iter,
            max_epochs=event.max_epochs,  # as it was then: the run may be over
            max_iters=event.max_iters,
            stage=event.stage,
        )
        self._run.bus.publish_threadsafe(saved)

    def _own(self, folder: Path) -> Path:
        """Return the folder of a series, which is this object's as long as it is subscribed."""
        owners = _owners.setdefault(self._run.bus, {})
        owner = owners.setdefault(folder, ref(self))()
        if owner is not None and owner is not self and owner._subscription.active:
            raise ConfigurationError(
                f"two Images write to {folder}: give one of them another tag=, or its pictures names"
            )
        owners[folder] = ref(self)
        return folder

    def _where(self) -> Path:
        run_dir = self._run.state.run_dir
        if self._folder is not None:
            return self._folder
        if run_dir is None:
            raise ConfigurationError(
                "Images need a place: give the Runner a run_dir=, or them a folder="
            )
        return run_dir / "images"


def _name_of(event: Event) -> str:
    batch_idx = getattr(event, "batch_idx", None)
    if event.stage in ("val", "test") and batch_idx is not None:
        return f"iter_{event.iter}_batch_{batch_idx}"
    return f"iter_{event.iter}"


def _checked(tag: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", tag):
        raise ConfigurationError(
            f"a tag is letters, digits, '.', '_', '-', and '/' between, got {tag!r}"
        )
    return tag
