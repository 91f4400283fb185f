"""What every event carries, and what of it never leaves the process."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema

from .envelope import encode
from .scalars import refuse_tensors

Stage = Literal["train", "val", "test"]
"""Which loop is running: `val` also while validation runs inside training."""

CountedBy = Literal["iter", "epoch", "batch_idx"]
"""A counter that `every=n` can look at."""


_STAMPED = frozenset(
    {"kind", "version", "run", "attempt", "rank", "seq", "time_ns", "monotonic_ns", "cause"}
)


class LiveField:
    """Marks a field that never leaves the process; see `Live`."""


Live = Annotated[SkipJsonSchema[Any], LiveField(), Field(default=None, exclude=True)]
"""A field that holds the thing itself: a batch, outputs, a checkpoint's dict, the runner.

It is never on the wire, and absent from what a background subscriber gets unless the
subscription names it (`keep=`).
"""


class LiveFieldAbsentError(AttributeError):
    """A live field was read where the event has none: in the background, or from the wire."""


class Event(BaseModel):
    """The base of all events; subscribe to it to get every one of them.

    A subclass adds fields. Its name on the wire, `kind`, is the class name in snake case. A model
    that is a field's type needs `ser_json_inf_nan="strings"` itself for NaN to survive in it.
    The class variables without a value that makes sense (`seq` is -1, `run` is empty) are
    stamped by the bus when the event is published; they are class variables and no fields
    because building an event then costs nothing for them, and nobody can pass them in.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        defer_build=True,  # validators are made at first use: the import takes 35 ms less
    )

    kind: ClassVar[str] = "event"
    """The event's name on the wire, `after_train_iter` for `AfterTrainIter`."""
    version: ClassVar[int] = 1
    """Raised when a change of the fields would mislead readers of the version before."""
    live_fields: ClassVar[frozenset[str]] = frozenset()
    """The names of the fields that never leave the process."""
    droppable: ClassVar[bool] = False
    """Whether a full inbox may drop the event; only those of every iteration are."""
    cleanup: ClassVar[bool] = False
    """Whether each subscriber is called even if one before it raised."""
    counted_by: ClassVar[CountedBy | None] = None
    """The counter that `every=n` looks at; None counts the events themselves."""

    run: ClassVar[str] = ""
    """The run's id."""
    attempt: ClassVar[int] = 0
    """How many times the run was started before."""
    rank: ClassVar[int] = 0
    """The publishing process's rank."""
    seq: ClassVar[int] = -1
    """The event's place in the attempt: gap-free, from 0."""
    time_ns: ClassVar[int] = 0
    """Wall-clock time of publishing, nanoseconds since 1970."""
    monotonic_ns: ClassVar[int] = 0
    """Monotonic time of publishing in nanoseconds; differences are durations."""
    cause: ClassVar[int] = -1
    """The `seq` of the event whose subscriber published this one; -1 if none did."""

    epoch: int = -1
    """Epochs completed; 0-based while one runs. Stamped by the bus if not given."""
    iter: int = -1
    """Training iterations completed; counted before the increment, so the first is 0."""
    max_epochs: int | None = None
    """Epochs the run will train for, if it is counted in epochs."""
    max_iters: int | None = None
    """Iterations the run will train for, if that is known."""
    stage: Stage | None = None
    """Which loop was running."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            cls.kind = _snake_case(cls.__name__)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.live_fields = frozenset(
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(mark, LiveField) for mark in field.metadata)
        )
        if cls.__module__.partition(".")[0] != __package__:
            cls.model_rebuild(raise_errors=False)  # a user's mistake shows where the class is

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return refuse_tensors(handler(source))

    if not TYPE_CHECKING:  # pyright would otherwise accept any attribute name

        def __getattr__(self, name: str) -> Any:
            if name in type(self).live_fields:
                raise LiveFieldAbsentError(
                    f"{type(self).__name__}.{name} is absent here: a live field never leaves the "
                    "process, and only blocking subscribers get it. Subscribe with "
                    f'mode="blocking", or with keep=("{name}",) for a detached snapshot'
                )
            return super().__getattr__(name)

    def __getstate__(self) -> dict[Any, Any]:
        # Pickling is for another process: live fields stay here, and what the bus keeps with it.
        state = super().__getstate__()
        travelling = (type(self).model_fields.keys() | _STAMPED) - self.live_fields
        fields = state["__dict__"].items()
        return {**state, "__dict__": {name: is_ for name, is_ in fields if name in travelling}}

    def without_live(self, keep: Mapping[str, Any] | None = None) -> Self:
        """Return the event without its live fields, but with those in `keep`.

        An event without live fields is returned as it is. Counters and stamp are the same.
        """
        if not self.live_fields:
            return self
        bare = self.__copy__()
        fields = vars(bare)
        for name in self.live_fields:
            if keep and name in keep:
                fields[name] = keep[name]
            else:
                fields.pop(name, None)
        return bare

    def to_json(self) -> bytes:
        """Return the event as one CloudEvents 1.0 JSON object, without its live fields."""
        return encode(self)

    def every_n_epochs(self, n: int, start: int = 0) -> bool:
        """Whether this is the n-th epoch, counted from `start`; False for `n` below 1."""
        return _every(self.epoch, n, start)

    def every_n_iters(self, n: int, start: int = 0) -> bool:
        """Whether this is the n-th training iteration, counted from `start`; False for `n` below 1."""
        return _every(self.iter, n, start)

    @property
    def is_last_epoch(self) -> bool:
        """Whether the epoch is the last one of the run."""
        return self.max_epochs is not None and self.epoch + 1 == self.max_epochs

    @property
    def is_last_iter(self) -> bool:
        """Whether the training iteration is the last one of the run."""
        return self.max_iters is not None and self.iter + 1 == self.max_iters


def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", words).strip("_").lower()


def _every(counter: int, n: int, start: int) -> bool:
    # MMEngine's rule (Hook.every_n_epochs): the counter is not incremented yet, and `start`
    # itself is due.
    past = counter + 1 - start
    return n > 0 and past >= 0 and past % n == 0


class MountPoint(Event):
    """A place in the loop: the loop waits there for the blocking subscribers."""


class Fact(Event):
    """Something that happened: reported, and waited for only by who subscribes as blocking."""
