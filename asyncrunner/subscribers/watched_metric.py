"""One metric of the validations: found by its name, and missed out loud."""

import logging
from collections.abc import Collection

from asyncrunner_events import AfterValEpoch

from ..errors import ConfigurationError
from ..suggest import did_you_mean

__all__ = ["WatchedMetric"]

logger = logging.getLogger("asyncrunner")


class WatchedMetric:
    """Looks for a metric in what validations give.

    Args:
        metric: Its name, `dataset/metric`.
        who: Who wants to know, for messages.
        strict: Whether a validation without it is an error.
    """

    def __init__(self, metric: str, *, who: str, strict: bool = False) -> None:
        self.metric = metric
        self.who = who
        self.strict = strict
        self._has_warned = False

    def look_for(self, datasets: Collection[str]) -> None:
        """Say so if no validation is on a data set of that name.

        Raises:
            ConfigurationError: If that is an error.
        """
        dataset = self.metric.rpartition("/")[0]
        if not any(dataset == one or dataset.startswith(f"{one}/") for one in datasets):
            known = ", ".join(map(repr, datasets)) or "none"
            self._is_missing(
                f"{self.who}: no validation gives {self.metric!r}{did_you_mean(dataset, datasets)}; "
                f"there are validations on {known}"
            )

    def value(self, event: AfterValEpoch) -> float | None:
        """Return the metric; None if this is another data set, or it is missing, which is said once.

        Raises:
            ConfigurationError: If it is missing, and that is an error.
        """
        if self.metric in event.metrics:
            return event.metrics[self.metric]
        if "/" in self.metric and not self.metric.startswith(f"{event.dataset}/"):
            return None
        there = list(event.metrics)
        known = ", ".join(map(repr, there)) or "none"
        self._is_missing(
            f"{self.who}: there is no metric {self.metric!r}{did_you_mean(self.metric, there)}; "
            f"the validation gave {known}"
        )
        return None

    def _is_missing(self, message: str) -> None:
        if self.strict:
            raise ConfigurationError(message)
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s", message)
