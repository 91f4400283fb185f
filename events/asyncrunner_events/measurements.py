"""What subscribers measured about a training that was not asked for by its step."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from .base import CountedBy, Fact


class Measurement(Fact):
    """Somebody measured something. Subscribe to it to see all of them.

    None is dropped or thinned on its way: how often one comes is set where it is measured.
    """

    counted_by: ClassVar[CountedBy | None] = "iter"


class ThroughputReady(Measurement):
    """How fast training was over the last iterations, without validations, and what it needed."""

    iters: int
    """The iterations that the speeds are of; `iter` is the last of them."""
    seconds: float
    """The seconds that they took."""
    iters_per_s: float
    """Iterations a second."""
    samples_per_s: float | None = None
    """Samples a second of this process, if batches have a size."""
    tokens_per_s: float | None = None
    """Tokens a second of this process, if they are counted."""
    flops_per_s: float | None = None
    """Floating-point operations a second of this process, if those of an iteration are known."""
    mfu: float | None = None
    """Model FLOPs utilisation: their share of what the device could do, if that is known."""
    memory_bytes: int | None = None
    """What tensors take of the device's memory; on the CPU, what the process takes."""
    memory_peak_bytes: int | None = None
    """The most that this process has taken so far."""
    memory_reserved_bytes: int | None = None
    """What the process holds of the device's memory, to use it again."""


class NormsReady(Measurement):
    """The norms of gradients and weights at an optimizer step are on the host, perhaps later.

    They are those of `iter`, as they were when the optimizer was about to step.
    """

    optimizer: str = "default"
    """The optimizer that was about to step."""
    gradient: float
    """The norm of all its gradients together."""
    weight: float
    """The norm of all its parameters together."""
    gradients: dict[str, float] = Field(default_factory=dict)
    """The norm of each gradient, by the parameter's name."""
    weights: dict[str, float] = Field(default_factory=dict)
    """The norm of each parameter that has a gradient."""


class Histogram(BaseModel):
    """How often values lie in each of the equal parts from `low` to `high`."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    low: float
    """The least finite value; NaN if there is none."""
    high: float
    """The greatest finite value."""
    counts: list[int]
    """How many finite values there are in each part."""
    nonfinite: int = 0
    """How many values are NaN or infinite."""


class HistogramsReady(Measurement):
    """Histograms at an optimizer step are on the host, perhaps some iterations later.

    They are those of `iter`, as they were when the optimizer was about to step.
    """

    optimizer: str = "default"
    """The optimizer that was about to step."""
    gradients: dict[str, Histogram] = Field(default_factory=dict)
    """Of each gradient, by the parameter's name."""
    weights: dict[str, Histogram] = Field(default_factory=dict)
    """Of each parameter that has a gradient."""


class ImageSaved(Measurement):
    """A picture of a batch or a prediction is in a file, perhaps some iterations later.

    It is of `iter`, in which the batch was seen.
    """

    path: str
    """Where it is: a PNG file."""
    tag: str
    """What it is of; all pictures with this tag are one series."""
    batch_idx: int | None = None
    """Which batch it is of, if it is of one."""


class TraceSaved(Measurement):
    """A profile of some iterations is in a file, for Perfetto, Chrome or TensorBoard."""

    path: str
    """Where it is."""
    iters: int
    """The iterations in it; `iter` is the last of them."""


MEASUREMENTS: tuple[type[Measurement], ...] = (
    ThroughputReady,
    NormsReady,
    HistogramsReady,
    ImageSaved,
    TraceSaved,
)
"""All of them."""
