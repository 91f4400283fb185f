"""Stops a run whose validations have become no better for some time.

It is MMEngine's EarlyStoppingHook; what differs: its state is in checkpoints, so a resumed run waits
no longer than one that never stopped, and one that was stopped stops again at once, unless it is given
more patience; the checkpointer saves at the end whatever its interval; NaN is never the best; and
equal values are an improvement only if `min_delta` says so.
"""

import math
from typing import TYPE_CHECKING, Any

from asyncrunner_events import AfterTrain, AfterValEpoch, BeforeTrain

from ..checkpoint.manifest import Rule
from ..checkpoint.retention import rule_of
from ..errors import ConfigurationError
from .watched_metric import WatchedMetric

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Stops training when a metric of the validation is at its best, or is lost.

    Args:
        monitor: The metric, such as `"val/loss"`.
        rule: Whether `"greater"` or `"less"` is better; if not given, the metric's name says it.
        min_delta: How much better a value must be to count as an improvement; that much is enough,
            but an equal one is none.
        patience: Validations in a row without an improvement after which training stops.
        threshold: A value so good that training stops at once when it is reached.
        check_finite: Whether training stops at once when the metric is NaN or infinite.
        strict: Whether a validation without the metric is an error; else it is said once.
        name: Its name in reports and checkpoints, and in `StopRequested`.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    def __init__(
        self,
        monitor: str,
        *,
        rule: Rule | None = None,
        min_delta: float = 0.0,
        patience: int = 5,
        threshold: float | None = None,
        check_finite: bool = True,
        strict: bool = False,
        name: str = "EarlyStopping",
    ) -> None:
        if rule not in ("greater", "less", None):
            raise ConfigurationError(f"rule must be 'greater' or 'less', got {rule!r}")
        if not 0 <= min_delta < math.inf:
            raise ConfigurationError(f"min_delta must be from 0, got {min_delta!r}")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(f"patience must be an int from 1, got {patience!r}")
        if threshold is not None and math.isnan(threshold):
            raise ConfigurationError("threshold must be a number, got nan")
        self.monitor = monitor
        self.rule: Rule = rule or rule_of(monitor, say="rule='greater' or 'less'")
        self.min_delta = min_delta
        self.patience = patience
        self.threshold = threshold
        self.check_finite = check_finite
        self.name = name
        self.best: float | None = None
        """The best value so far; None as long as there was no finite one."""
        self.waited = 0
        """Validations since then."""
        self._last: float | None = None
        self._metric = WatchedMetric(monitor, who=name, strict=strict)
        self._is_training = False

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the validations."""
        self._run = run
        run.subscribe(BeforeTrain, self._training_begins)
        run.subscribe(AfterTrain, self._training_ends)
        run.subscribe(AfterValEpoch, self._validated, priority="LOWEST")

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, the last one, and how long ago the best was."""
        return {"best": self.best, "last": self._last, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on waiting."""
        self.best, self._last, self.waited = state["best"], state["last"], state["waited"]

    def _training_begins(self, event: BeforeTrain) -> None:
        self._is_training = True
        self._metric.look_for(self._run.state.val)
        self._stop_if_it_is_time()

    def _training_ends(self, event: AfterTrain) -> None:
        self._is_training = False

    def _validated(self, event: AfterValEpoch) -> None:
        if not self._is_training or (value := self._metric.value(event)) is None:
            return
        self._last = value
        if self._is_better(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_it_is_time()

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        if self.rule == "greater":
            return value > self.best and value >= self.best + self.min_delta
        return value < self.best and value <= self.best - self.min_delta

    def _stop_if_it_is_time(self) -> None:
        value = self._last
        if value is None:
            return
        if self.check_finite and not math.isfinite(value):
            self._run.stop(f"{self.monitor} is {value}")
        elif self.threshold is not None and self._reaches(value, self.threshold):
            self._run.stop(f"{self.monitor} is {value:g}, and {self.threshold:g} was to be reached")
        elif self.waited >= self.patience:
            best = "there was no finite one" if self.best is None else f"the best is {self.best:g}"
            self._run.stop(f"{self.monitor} has not improved in {self.waited} validations: {best}")

    def _reaches(self, value: float, threshold: float) -> bool:
        return value >= threshold if self.rule == "greater" else value <= threshold
