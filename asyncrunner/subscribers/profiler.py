"""`torch.profiler` over some iterations: where the time of a step goes, on the host and the device."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch._C._profiler import _ExperimentalConfig  # pyright: ignore[reportPrivateUsage]  # the only way to see every thread
from torch.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    schedule,  # pyright: ignore[reportUnknownVariableType]  # half typed in torch
    supported_activities,
)

from asyncrunner_events import AfterTrain, AfterTrainIter, BeforeTrain, TraceSaved

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["Profiler"]

_LAST = 100
"""After every other subscriber, so that what those do is in the profile of its iteration."""


class Profiler:
    """Profiles some iterations, and writes a trace each time into `run_dir/profile`.

    Each cycle of iterations is `wait` of rest, `warmup` that are profiled and thrown away, and
    `active` that are kept. The traces are in Chrome's format, for ui.perfetto.dev, under names that
    TensorBoard's profiler plugin finds too: `rank0.<iter>.pt.trace.json`. `TraceSaved` says where.
    When training ends within a cycle, by an error too, what was profiled until then is written.

    Profiling costs time, writing a trace seconds; the other iterations cost nothing. If a trace cannot
    be written, profiling ends and training goes on.

    Args:
        skip_first: Iterations of this start of the run that come before the first cycle.
        wait: See above.
        warmup: See above.
        active: See above.
        repeat: How many cycles; 0 is until the end.
        activities: What is profiled; everything that torch supports here if not given.
        record_shapes: Note the shapes of inputs.
        profile_memory: Note what is allocated.
        with_stack: Note the lines of Python.
        with_flops: Estimate operations of matrix products and convolutions.
        table: Write a table too, `rank0.<iter>.txt`, sorted by this: `"self_cpu_time_total"`.
        folder: Where to write, in place of the run directory's.
        ranks: Which processes are profiled.
        on_trace: Called with torch's profiler for each trace, in place of writing it.

    Raises:
        ConfigurationError: If there is nothing to profile.
    """

    def __init__(
        self,
        *,
        skip_first: int = 10,
        wait: int = 0,
        warmup: int = 1,
        active: int = 3,
        repeat: int = 1,
        activities: Iterable[ProfilerActivity] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        table: str | None = None,
        folder: str | Path | None = None,
        ranks: Sequence[int] = (0,),
        on_trace: Callable[[profile], Any] | None = None,
    ) -> None:
        counts = {"skip_first": skip_first, "wait": wait, "repeat": repeat}
        for name, value, least in (
            *((name, value, 0) for name, value in counts.items()),
            ("warmup", warmup, 1),  # torch warns without: the first iteration would mislead
            ("active", active, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
                raise ConfigurationError(f"{name} must be an int from {least}, got {value!r}")
        self._schedule: Callable[[int], ProfilerAction] = schedule(
            skip_first=skip_first, wait=wait, warmup=warmup, active=active, repeat=repeat
        )
        self._options: dict[str, Any] = {
            "activities": list(supported_activities() if activities is None else activities),
            "record_shapes": record_shapes,
            "profile_memory": profile_memory,
            "with_stack": with_stack,
            "with_flops": with_flops,
        }
        self._skip_first, self._rest, self._active = skip_first, wait + warmup, active
        self._table = table
        self._folder = None if folder is None else Path(folder)
        self._ranks = ranks
        self._on_trace = on_trace
        self._profile: profile | None = None
        self._last_iter = 0
        self._seen = 0

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the iterations of training."""
        self._run = run
        run.subscribe(BeforeTrain, self._begin, priority=_LAST, ranks=self._ranks)
        for event_type, subscriber in ((AfterTrainIter, self._step), (AfterTrain, self._end)):
            run.subscribe(
                event_type, subscriber, priority=_LAST, ranks=self._ranks, on_error="disable"
            )

    def _begin(self, event: BeforeTrain) -> None:
        self._where()  # raises now, not after the iterations
        self._last_iter, self._seen = event.iter - 1, 0
        # Steps may compute in a thread beside this one, and torch looks at one thread by default.
        every_thread = _ExperimentalConfig(profile_all_threads=True)
        warnings.filterwarnings("ignore", message="Warning: Profiler clears events")  # as it should
        self._profile = profile(
            schedule=self._schedule,
            on_trace_ready=self._on_trace or self._write,
            experimental_config=every_thread,
            **self._options,
        )
        self._profile.start()

    def _step(self, event: AfterTrainIter) -> None:
        profiled, self._profile = self._profile, None
        if profiled is not None:
            self._last_iter, self._seen = event.iter, self._seen + 1
            profiled.step()
            self._profile = profiled  # if that failed it must not be stopped: torch would crash

    def _end(self, event: AfterTrain) -> None:
        profiled, self._profile = self._profile, None
        if profiled is not None:
            profiled.stop()

    def _where(self) -> Path:
        run_dir = self._run.state.run_dir
        if self._folder is None and run_dir is None and self._on_trace is None:
            raise ConfigurationError(
                "a Profiler needs a place: give the Runner a run_dir=, or it a folder="
            )
        return self._folder or (run_dir or Path()) / "profile"

    def _write(self, profiled: profile) -> None:
        bus, folder = self._run.bus, self._where()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank{bus.rank}.{self._last_iter}.pt.trace.json"
        profiled.export_chrome_trace(str(path))
        if self._table is not None:
            averages: Any = profiled.key_averages()
            table: str = averages.table(sort_by=self._table, row_limit=50)
            path.with_name(f"rank{bus.rank}.{self._last_iter}.txt").write_text(table)
        cycle = self._rest + self._active
        done = (self._seen - self._skip_first - 1) % cycle + 1 - self._rest
        bus.publish_threadsafe(TraceSaved(path=str(path), iter=self._last_iter, iters=done))
