"""Subscribers that listen to several event types: `Runner.add`."""

from pathlib import Path
from typing import Any

import pytest
from toys import epochs, fit, seen

from asyncrunner import Attachment
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError, SubscriptionError
from asyncrunner.events import AfterTrainIter, BeforeTrain, StopRequested


class Counter:
    """Counts iterations, and stops at a number."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.count = most, 0

    def attach(self, run: Attachment) -> None:
        self.run = run
        run.subscribe(AfterTrainIter, self.see)

    def see(self, event: AfterTrainIter) -> None:
        self.count += 1
        if self.count == self.most:
            self.run.stop("that many")

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


async def test_it_sees_its_events_and_decides_in_its_name():
    counter = Counter(3)
    runner = fit(epochs(2), subscribers=[counter])
    stops = seen(runner, StopRequested)
    await runner.train()
    assert counter.count == 3
    assert [(stop.by, stop.reason) for stop in stops] == [("Counter", "that many")]
    assert [s.name for s in runner.bus.subscriptions][:1] == ["Counter"]


async def test_it_sees_the_state_of_the_run_from_its_beginning_on():
    class Looks:
        def attach(self, run: Attachment) -> None:
            self.run, self.models = run, list[Any]()
            run.subscribe(BeforeTrain, lambda _: self.models.append(run.state.model))

    looks = Looks()
    runner = fit(epochs(1))
    runner.add(looks)
    with pytest.raises(ConfigurationError, match="no run is going on"):
        _ = looks.run.state
    await runner.train()
    assert looks.models == [runner.state.model]


async def test_its_state_is_in_the_checkpoint_and_comes_back(tmp_path: Path):
    runner = fit(epochs(2), run_dir=tmp_path, subscribers=[Counter(3)])
    await runner.train()
    (saved,) = (tmp_path / "checkpoints").glob("iter_*")
    assert read_checkpoint(saved)["stateful"]["Counter"] == {"count": 3}
    again = Counter()
    await fit(epochs(2), run_dir=tmp_path, subscribers=[again]).train()
    assert again.count == 4


async def test_two_that_keep_a_state_need_names_of_their_own(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path, subscribers=[Counter()])
    with pytest.raises(ConfigurationError, match="under the name 'Counter'"):
        runner.add(Counter())
    other: Any = Counter()
    other.name = "other"
    runner.add(other)
    await runner.train()
    assert set(read_checkpoint(tmp_path / "checkpoints" / "epoch_1")["stateful"]) == {
        "Counter",
        "other",
    }


async def test_once_cancelled_it_sees_nothing_and_its_name_is_free():
    first, second = Counter(), Counter()
    runner = fit(epochs(1))
    with runner.add(first):
        pass
    runner.add(second)
    await runner.train()
    assert (first.count, second.count) == (0, 2)


def test_of_one_that_cannot_be_attached_nothing_stays():
    class Broken(Counter):
        def attach(self, run: Attachment) -> None:
            super().attach(run)
            run.subscribe(AfterTrainIter, self.see, every=0)

    runner = fit(epochs(1))
    with pytest.raises(SubscriptionError, match="every must be"):
        runner.add(Broken())
    assert runner.bus.subscriptions == []
    runner.add(Counter())


@pytest.mark.parametrize("thing", [print, Counter, 3])
def test_only_an_object_with_attach_can_be_added(thing: Any):
    with pytest.raises(ConfigurationError, match=r"takes an object with attach\(run\)"):
        fit(epochs(1)).add(thing)
