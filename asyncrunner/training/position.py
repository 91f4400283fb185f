"""Where training is in its data, and how a resumed run gets there without reading what was used.

An epoch's order is drawn when it begins. So what the generators were then is remembered; a run that
is resumed within the epoch puts it back, has the same order drawn again, passes over the samples
that were used without loading them, and puts back what the generators were at the checkpoint. This
works for every loader whose order depends on nothing but generators and the epoch's number.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from ..data import SeededDataset, SeededSampler
from .batches import Loader, has_state, is_indexed, set_epoch
from .randomness import DataRandomness, Randomness

_KNOWN_SAMPLERS = (
    *(SeededSampler, SequentialSampler, RandomSampler, SubsetRandomSampler),
    *(WeightedRandomSampler, DistributedSampler),
)
"""Those that draw an epoch's order when it begins, or from a generator of their own."""
_TORCHDATA = "torchdata.stateful_dataloader.sampler"
"""Where StatefulDataLoader has those of its own that do, too."""


class DataPosition:
    """Which pass over the loader is on, and what the generators were when it began.

    The methods are called in this order: `load_state_dict` if a run is resumed, `put_back` before
    training begins, and for each pass `begin`, `passed_over`, `pass_done`.
    """

    def __init__(self) -> None:
        self.number = 0
        """The pass, from 0."""
        self.loader: Any = None
        """The loader that is trained on."""
        self._began_at = 0
        self._start: DataRandomness | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._go_on: Randomness | None = None

    @property
    def is_inside(self) -> bool:
        """Whether what was resumed goes on in the middle of a pass that has not begun yet."""
        return self._resumed is not None and self._resumed["batch"] > 0

    def batch(self, iter: int) -> int:
        """Return how many batches of the pass are done when so many iterations are completed."""
        return iter - self._began_at

    def put_back(self, *loaders: Loader) -> None:
        """Have the generators be what they were, whatever was drawn since the process started.

        Args:
            loaders: Those whose generators were stored, in the same order.
        """
        if self._resumed is not None:
            DataRandomness.from_state_dict(self._resumed["now"]).put_back(*loaders)

    def begin(self, loader: Loader, number: int, iter: int) -> int:
        """Begin a pass over the loader, or go on in the one that was resumed.

        Args:
            loader: The loader; samplers are told the pass's number.
            number: The pass, from 0.
            iter: Iterations completed.

        Returns:
            How many batches of it are done.
        """
        known: Any = loader
        self.loader, self.number = loader, number
        resumed, self._resumed = self._resumed, None
        done = 0
        set_epoch(loader, number)
        if resumed is not None:
            done = resumed["batch"]
            if resumed["loader"] is not None and has_state(loader):
                known.load_state_dict(resumed["loader"])
            if done and resumed["start"] is not None:
                self._go_on = Randomness.now()
                DataRandomness.from_state_dict(resumed["start"]).put_back(loader)
        self._began_at = iter - done
        self._start = DataRandomness.now(loader)
        return done

    def passed_over(self) -> None:
        """Have the generators be what they were before `begin`: the order is drawn again."""
        if self._go_on is not None:
            self._go_on.put_back()
            self._go_on = None

    def pass_done(self, iter: int) -> None:
        """End a pass; the next one has not drawn anything yet."""
        self.passed_over()
        self.number, self._began_at, self._start = self.number + 1, iter, None

    def state_dict(self, iter: int, now: DataRandomness) -> dict[str, Any]:
        """Return what a run goes on from when so many iterations are completed.

        Args:
            iter: Iterations completed.
            now: The states of the generators to go on from.
        """
        if self._resumed is not None:  # resumed itself, and no pass begun: it is still there
            return {**self._resumed, "now": now.state_dict()}
        loader = self.loader
        return {
            "pass": self.number,
            "batch": self.batch(iter),
            "start": None if self._start is None else self._start.state_dict(),
            "now": now.state_dict(),
            "loader": _state_of(loader),
            "workers": getattr(loader, "num_workers", None),
            "samples": _samples(loader),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, when the next pass begins."""
        self._resumed = state
        self.number = state["pass"]

    def doubts(self) -> list[str]:
        """Return why the data that follows may be other than in a run that was never stopped."""
        state, loader = self._resumed, self.loader
        if state is None or loader is None:
            return []
        workers = getattr(loader, "num_workers", None)
        reasons = list(_doubts(loader, state["batch"], has_changed=workers != state["workers"]))
        if (samples := _samples(loader)) != state["samples"]:
            reasons.append(f"the data has {samples} samples now, and had {state['samples']}")
        return reasons


def _state_of(loader: Any) -> Any:
    if not has_state(loader):
        return None
    before = DataRandomness.now(loader)
    state = loader.state_dict()  # torchdata's begins an epoch, and draws, to have one
    before.put_back(loader)
    return state


def _samples(loader: Any) -> int | None:
    try:
        return len(getattr(loader, "dataset", loader))
    except TypeError:
        return None


def _doubts(loader: Any, batch: int, *, has_changed: bool) -> Iterator[str]:
    if has_state(loader):
        return
    dataset: Any = getattr(loader, "dataset", None)
    if not isinstance(loader, DataLoader):
        if batch and not is_indexed(loader):
            yield (
                f"the {batch} batches that were used are read again to get past them: "
                f"{type(loader).__name__} has no state_dict"
            )
        return
    if isinstance(dataset, IterableDataset):
        if batch:
            yield f"the {batch} batches that were used are read again: it is an IterableDataset"
        return
    innermost = cast("Any", loader.batch_sampler or loader.sampler)  # pyright: ignore[reportUnknownMemberType]
    if type(innermost) is BatchSampler or _is_torchdatas(innermost):
        innermost = getattr(innermost, "sampler", innermost)
    if batch and not (isinstance(innermost, _KNOWN_SAMPLERS) or _is_torchdatas(innermost)):
        yield f"{type(innermost).__name__} may draw its order in another way than PyTorch's samplers"
    if loader.persistent_workers:
        yield "persistent workers begin anew, and draw their seeds once more"
    if loader.num_workers and (batch or has_changed) and not _draws_nothing(dataset):
        yield "random numbers drawn in workers begin anew: wrap the data set in SeededDataset"


def _is_torchdatas(sampler: object) -> bool:
    return type(sampler).__module__ == _TORCHDATA


def _draws_nothing(dataset: Any) -> bool:
    if isinstance(dataset, Subset):
        return _draws_nothing(dataset.dataset)  # pyright: ignore[reportUnknownMemberType]
    return isinstance(dataset, TensorDataset | SeededDataset)
