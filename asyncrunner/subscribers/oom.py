"""Lets a run survive a batch that does not fit into the device's memory.

`"split"` computes the batch again in two halves, then in four pieces, and so on: the gradients are the
same but for rounding, if the loss is a mean over the samples, and the layers do not look at a batch
as a whole, as BatchNorm does. `"skip"` leaves the batch out. Both are published, with the batch's place.
Random numbers that the first attempt drew are not drawn again.

Memory that the optimizer's step, a validation or a test runs out of is not caught.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from asyncrunner_events import BeforeTrain, StepFailed

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..training.attachment import Attachment

__all__ = ["OutOfMemory"]

Action = Literal["split", "skip"]
"""What is done about a batch."""


class OutOfMemory:
    """Decides what happens to a batch that does not fit into memory.

    Args:
        action: `"split"` computes it in pieces, `"skip"` leaves it out.
        most: Into how many pieces a batch is cut at most, or how many in a row are left out; after
            that the error is raised.
        keep: Whether the batches after it are computed in as many pieces from the beginning, also in a
            run that is resumed; else each is tried whole.
        split: Cuts a batch, `split(batch, pieces)`; needed if it is not along its tensors' first axis.
        name: Its name in reports, checkpoints and decisions.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    def __init__(
        self,
        action: Action = "split",
        *,
        most: int = 16,
        keep: bool = True,
        split: "Callable[[Any, int], Sequence[Any]] | None" = None,
        name: str = "OutOfMemory",
    ) -> None:
        if action not in get_args(Action):
            raise ConfigurationError(f"action must be 'split' or 'skip', got {action!r}")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(f"most must be an int from 1, got {most!r}")
        self.action = action
        self.most = most
        self.keep = keep
        self.split = split
        self.name = name
        self.pieces = 1
        """In how many pieces a batch had to be computed so far."""
        self._skipped = (-1, 0)

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the steps that fail."""
        self._run = run
        run.subscribe(BeforeTrain, self._training_begins)
        run.subscribe(StepFailed, self._decide)

    def state_dict(self) -> dict[str, int]:
        """Return in how many pieces batches are computed."""
        return {"pieces": self.pieces}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with so many pieces."""
        self.pieces = state["pieces"]

    def _training_begins(self, event: BeforeTrain) -> None:
        state = self._run.state
        state.pieces = self.pieces if self.keep else 1
        if self.split is not None:
            state.split = self.split

    def _decide(self, event: StepFailed) -> None:
        if self.action == "split":
            self._halve(event)
        else:
            self._skip(event)

    def _halve(self, event: StepFailed) -> None:
        pieces = 2 * event.pieces
        if pieces > self.most:
            return
        self._run.split_batch("it does not fit into memory", pieces=pieces)
        if self.keep:
            self.pieces = self._run.state.pieces = pieces

    def _skip(self, event: StepFailed) -> None:
        last, in_a_row = self._skipped
        in_a_row = in_a_row + 1 if event.iter == last + 1 else 1
        if in_a_row <= self.most:
            self._skipped = (event.iter, in_a_row)
            self._run.skip_batch("it does not fit into memory")
