"""PyTorch's module hooks as events: opt-in, on chosen modules."""

from typing import ClassVar, Literal

from pydantic import Field

from .base import CountedBy, Event, Fact, Live


class ModuleProbe(Event):
    """Base of `ModuleForward` and `ModuleBackward`."""

    droppable: ClassVar[bool] = True
    counted_by: ClassVar[CountedBy | None] = "iter"

    module: str
    """The module's path, `layer3.0.conv1`."""
    module_class: str
    """The module's class name."""
    input_shapes: list[list[int]] = Field(default_factory=list[list[int]])
    """The shapes of the tensors that went in."""
    output_shapes: list[list[int]] = Field(default_factory=list[list[int]])
    """The shapes of the tensors that came out."""
    dtypes: list[str] = Field(default_factory=list)
    """The dtypes of the tensors that came out."""
    inputs: Live = None
    """The tensors that went in; on the backward pass, the gradients of the inputs."""
    outputs: Live = None
    """The tensors that came out; on the backward pass, the gradients of the outputs."""


class ModuleForward(ModuleProbe):
    """A probed module ran forward; `torch.nn.Module.register_forward_hook`."""


class ModuleBackward(ModuleProbe):
    """A probed module ran backward; `torch.nn.Module.register_full_backward_hook`."""


class ModuleMeasured(Fact):
    """Statistics of what a probed module gave are on the host, perhaps some iterations later."""

    droppable: ClassVar[bool] = True
    counted_by: ClassVar[CountedBy | None] = "iter"

    module: str
    """The module's path, `layer3.0.conv1`."""
    module_class: str
    """The module's class name."""
    direction: Literal["forward", "backward"]
    """Whether they are of the first output, or of the gradient of the first output."""
    metrics: dict[str, float]
    """`mean`, `std`, `min` and `max` of the finite elements; `zeros` and `nonfinite`, as shares."""


PROBES: tuple[type[Event], ...] = (ModuleForward, ModuleBackward, ModuleMeasured)
"""All of them."""
