"""A running average of the weights, which validation and test see in place of those being trained.

The averages are those of `torch.optim.swa_utils`, computed by its functions; but not by its
`AveragedModel`, which copies the whole model with all that hangs on it, and keeps its count in a
tensor: on a device every update would read or copy that twice, and the loop would wait each time.

When the weights are the averaged ones: from `BeforeValEpoch` (`BeforeTestEpoch`) to `AfterVal`
(`AfterTest`), which come also after an error or when a stop cuts the validation short. So what
is validated after training, or tested, is the average too.

What a checkpoint holds: in its `model` the averaged weights, which whoever loads or exports it wants,
and which a best one was best with; the ones that were being trained are in `stateful.EMA.weights`, and a
run that is resumed goes on with those, to the bit. Resumed without an `EMA` it says that it
begins with the averaged ones.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import swa_utils

from asyncrunner_events import (
    AfterLoadCheckpoint,
    AfterOptimizerStep,
    AfterTest,
    AfterTrain,
    AfterVal,
    BeforeRun,
    BeforeSaveCheckpoint,
    BeforeTestEpoch,
    BeforeTrain,
    BeforeValEpoch,
    Event,
    RunFailed,
    RunInterrupted,
)

from ..checkpoint.export import check_weights_file, write_weights
from ..errors import AsyncRunnerError, ConfigurationError

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["EMA", "Kind"]

Kind = Literal["exponential", "annealed", "equal"]
"""How weights are averaged."""

logger = logging.getLogger("asyncrunner")

_FIRST = "VERY_HIGH"  # others see at a mount point what the weights are from there on


class EMA:
    """Averages the weights after each step of the optimizer, and has them evaluated.

    Args:
        decay: How much of the average stays in an update.
        kind: `"exponential"`; `"annealed"`, where the n-th update keeps no more than
            `n / (gamma + n)`, so that the beginning is forgotten sooner; or `"equal"`, stochastic
            weight averaging: all weights count the same, and there is no `decay`.
        gamma: See `kind`.
        begin: The first iteration (`100`) or epoch (`"3ep"`) whose weights count, from 0.
        every: Steps of the optimizer from one update to the next.
        buffers: Whether buffers that are no whole numbers, such as the mean in a BatchNorm, are
            averaged too; else they are the model's own.
        optimizer: Whose steps count, if there are several optimizers.
        file: Where the averaged weights are written when training has ended, alone: a
            `.safetensors`, `.pt` or `.pth` file.
        name: Its name in reports and checkpoints.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    def __init__(
        self,
        decay: float = 0.999,
        *,
        kind: Kind = "exponential",
        gamma: float = 100,
        begin: int | str = 0,
        every: int = 1,
        buffers: bool = False,
        optimizer: str | None = None,
        file: str | Path | None = None,
        name: str = "EMA",
    ) -> None:
        if not 0 <= decay <= 1:
            raise ConfigurationError(f"decay must be from 0 to 1, got {decay!r}")
        if kind not in get_args(Kind):
            raise ConfigurationError(
                f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}"
            )
        if not 0 < gamma < math.inf:
            raise ConfigurationError(f"gamma must be above 0, got {gamma!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(f"every must be an int from 1, got {every!r}")
        self.decay = decay
        self.kind = kind
        self.gamma = gamma
        self.begin = _place(begin)
        self.every = every
        self.buffers = buffers
        self.optimizer = optimizer
        self.file = None if file is None else Path(file)
        self.name = name
        if self.file is not None:
            check_weights_file(self.file)
        self.count = 0
        """Updates so far: how many weights are in the average."""
        self._steps = 0
        self._live: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._is_swapped = self._has_failed = False

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the steps, to what evaluates, and to checkpoints."""
        self._run = run
        run.subscribe(BeforeRun, self._run_begins, priority=_FIRST)
        run.subscribe(AfterLoadCheckpoint, self._weights_change, priority=_FIRST)
        run.subscribe(BeforeTrain, self._training_begins)
        run.subscribe(AfterOptimizerStep, self._optimizer_stepped)
        run.subscribe((BeforeValEpoch, BeforeTestEpoch), self._evaluation_begins, priority=_FIRST)
        run.subscribe((AfterVal, AfterTest), self._evaluation_ends, priority=_FIRST)
        run.subscribe(BeforeSaveCheckpoint, self._checkpoint_is_saved, priority=_FIRST)
        run.subscribe((RunFailed, RunInterrupted), self._run_fails)
        if self.file is not None:
            run.subscribe(AfterTrain, self._training_ends)

    def averaged(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, or nothing as long as there are none."""
        return dict(self._live if self._is_swapped else self._averages)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights that are trained, and the counts; the averages are where the model's are."""
        state: dict[str, Any] = {"count": self.count, "steps": self._steps}
        if self.count:
            weights, averages = self._live, self._averages
            if self._is_swapped:
                weights, averages = averages, weights
            there = self._model.state_dict().keys()
            state["weights"] = {name: weight.detach() for name, weight in weights.items()}
            state["elsewhere"] = {n: a.detach() for n, a in averages.items() if n not in there}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on: the model has been given the averages, and is given what was trained.

        Raises:
            ConfigurationError: If these are not the weights of this model.
        """
        self.count, self._steps = state["count"], state["steps"]
        if not self.count:
            return
        if state["weights"].keys() != self._live.keys():
            differing = ", ".join(sorted(state["weights"].keys() ^ self._live.keys()))
            raise ConfigurationError(f"only one of checkpoint and model has {differing}")
        self._averages = _copies(self._live)
        with torch.no_grad():
            for name, weight in state["weights"].items():
                self._live[name].copy_(weight)
            for name, average in state["elsewhere"].items():  # such as a buffer that is not saved
                self._averages[name].copy_(average)

    # When

    def _run_begins(self, event: BeforeRun) -> None:
        model = self._run.state.uncompiled_model
        self._has_failed = False
        self._model = model
        named = dict(model.named_parameters())
        if self.buffers:
            named |= dict(model.named_buffers())
        self._live = {n: t for n, t in named.items() if t.is_floating_point() or t.is_complex()}

    def _training_begins(self, event: BeforeTrain) -> None:
        self._name = self._run.state.optimizer_name(self.optimizer, asked_by=self.name)

    def _weights_change(self, event: AfterLoadCheckpoint) -> None:
        self.count = self._steps = 0
        self._averages = {}

    def _optimizer_stepped(self, event: AfterOptimizerStep) -> None:
        begin, unit = self.begin
        if event.optimizer != self._name or (event.epoch if unit == "ep" else event.iter) < begin:
            return
        if self._steps % self.every == 0:
            self._update()
        self._steps += 1

    def _update(self) -> None:
        if self.count == 0:
            self._averages = _copies(self._live)
        else:
            for averages, live in self._groups():
                if self.kind == "equal":
                    swa_utils.get_swa_multi_avg_fn()(averages, live, self.count)
                else:
                    swa_utils.get_ema_multi_avg_fn(self._decay())(averages, live, self.count)
        self.count += 1

    def _decay(self) -> float:
        if self.kind == "exponential":
            return self.decay
        return min(self.decay, self.count / (self.gamma + self.count))

    def _groups(self) -> Iterator[tuple[Any, Any]]:
        """Yield averages and weights of one device and type: only those go in one operation."""
        groups: dict[object, tuple[list[Tensor], list[Tensor]]] = {}
        for name, live in self._live.items():
            averages, lives = groups.setdefault((live.device, live.dtype), ([], []))
            averages.append(self._averages[name])
            lives.append(live.detach())
        yield from groups.values()

    # Where the weights are

    def _evaluation_begins(self, event: BeforeValEpoch | BeforeTestEpoch) -> None:
        if self.count and not self._is_swapped:
            self._swap()

    def _evaluation_ends(self, event: AfterVal | AfterTest) -> None:
        if self._is_swapped:
            self._swap()

    def _swap(self) -> None:
        # By value: an optimizer, a compiled graph or a probe may hold on to the tensors themselves.
        with torch.no_grad():
            for name, live in self._live.items():
                trained = live.clone()
                live.copy_(self._averages[name])
                self._averages[name].copy_(trained)
        self._is_swapped = not self._is_swapped

    def _checkpoint_is_saved(self, event: BeforeSaveCheckpoint) -> None:
        if self.count and not self._is_swapped:
            event.checkpoint["model"].update(self._in_all_places())

    def _in_all_places(self) -> dict[str, Tensor]:
        """Return the averages by every name in a state dict: a tied weight has several."""
        average_of = {id(live): self._averages[name] for name, live in self._live.items()}
        there = self._model.state_dict(keep_vars=True).items()
        return {name: average_of[id(live)] for name, live in there if id(live) in average_of}

    # The file

    def _run_fails(self, event: Event) -> None:
        self._has_failed = True

    def _training_ends(self, event: AfterTrain) -> None:
        if not self.count or self._has_failed or self.file is None:
            return
        try:
            write_weights({**self._model.state_dict(), **self._in_all_places()}, self.file)
        except AsyncRunnerError as error:  # the training is done, and its checkpoints are good
            logger.warning("%s: the averaged weights were not written: %s", self.name, error)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _place(begin: int | str) -> tuple[int, str]:
    """Return from which iteration or epoch on."""
    text = str(begin).removesuffix("ep").removesuffix("it")
    if isinstance(begin, bool) or not isinstance(begin, int | str) or not text.isdecimal():  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
        raise ConfigurationError(f'begin must be an int from 0, or like "3ep", got {begin!r}')
    return int(text), "ep" if str(begin).endswith("ep") else "it"
