"""Test-time augmentation: several views of each batch, and one answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from asyncrunner_events import AfterTest, AfterVal, BeforeTest, BeforeVal

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["TestTimeAugmentation", "mean_of"]

View = Callable[[Any], Any]
"""Changes what the model is given: `lambda images: images.flip(-1)`."""


class TestTimeAugmentation:
    """Has the model see several views of what a test step gives it, and answer with their mean.

    While a test runs, the `model` that the test step gets is one that calls the real model once for
    each view, with its first argument changed by the view, and merges the outputs. So the step need
    not know: loss and metrics are those of the merged outputs. Everything else about the model is the
    real one's; what a step calls on it beside `model(…)` sees no views. Afterwards, also after an
    error, the real model is back in its place.

    A test takes as many times longer as there are views. The batch as it is counts as a view only if it
    is named: `TestTimeAugmentation(lambda x: x, lambda x: x.flip(-1))`.

    Args:
        views: The views. One whose output is changed with its input, such as the mask of a flipped
            picture, is a pair: the view, and what undoes it in the output.
        merge: Makes one output out of a list of them.
        val: Do it in validations too.

    Raises:
        ConfigurationError: If there is no view, or one cannot be called.
    """

    __test__ = False  # pytest would take it for a class of tests

    def __init__(
        self,
        *views: View | tuple[View, View],
        merge: Callable[[list[Any]], Any] | None = None,
        val: bool = False,
    ) -> None:
        pairs: list[tuple[View, ...]] = [
            view if isinstance(view, tuple) else (view, _as_it_is) for view in views
        ]
        if not pairs or not all(len(pair) == 2 and all(map(callable, pair)) for pair in pairs):
            raise ConfigurationError(
                f"views must be one or more functions, or pairs of them, got {views!r}"
            )
        self._views = [(view, undo) for view, undo in pairs]
        self._merge = merge or mean_of
        self._val = val
        self._real: nn.Module | None = None

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the beginning and the end of tests."""
        self._run = run
        before, after = (BeforeTest, BeforeVal), (AfterTest, AfterVal)
        which = slice(2 if self._val else 1)
        run.subscribe(before[which], self._begin, priority=100)
        run.subscribe(after[which], self._end, priority=0)

    def _begin(self, event: object) -> None:
        state = self._run.state
        self._real = state.model
        state.model = _Augmented(state.model, self._views, self._merge)

    def _end(self, event: object) -> None:
        if self._real is not None:
            self._run.state.model, self._real = self._real, None


class _Augmented(nn.Module):
    """Calls the model for each view."""

    def __init__(
        self,
        model: nn.Module,
        views: Sequence[tuple[View, View]],
        merge: Callable[[list[Any]], Any],
    ) -> None:
        super().__init__()
        self.real = model
        self._views = views
        self._merge = merge
        self.training = model.training

    def forward(self, given: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = [undo(self.real(view(given), *args, **kwargs)) for view, undo in self._views]
        return self._merge(outputs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.real, name)


def mean_of(outputs: list[Any]) -> Any:
    """Return the mean of tensors, or of each tensor in dicts, lists and tuples.

    Raises:
        ConfigurationError: If there is something else in them.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.stack(outputs).mean(dim=0, dtype=None if _has_mean(first) else torch.float32)
    if isinstance(first, Mapping):
        names = cast("Mapping[Any, Any]", first)
        return {name: mean_of([output[name] for output in outputs]) for name in names}
    if isinstance(first, list | tuple):
        parts = [mean_of(list(part)) for part in zip(*outputs, strict=True)]
        return type(cast("list[Any]", first))(parts)
    raise ConfigurationError(
        f"the mean of outputs that hold {type(first).__name__} is not known: give merge="
    )


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _as_it_is(output: Any) -> Any:
    return output
