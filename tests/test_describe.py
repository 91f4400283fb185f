"""The table of who listens to what."""

from toys import epochs, fit

from asyncrunner import Bus, Runner
from asyncrunner.describe import subscriber_table
from asyncrunner.events import (
    MOUNT_POINTS,
    AfterTrainIter,
    BeforeTrainIter,
    Event,
    MetricsReady,
)


class Mine(Event):
    """An event of the user's own."""


def one(event: Event) -> None: ...
def two(event: Event) -> None: ...


def rows_of(table: str, kind: str) -> list[list[str]]:
    """Return the columns of the rows that belong to an event."""
    lines = [line.split() for line in table.splitlines()]
    start = next(number for number, columns in enumerate(lines) if columns[0] == kind)
    rows = [lines[start]]
    kinds = {point.kind for point in MOUNT_POINTS} | {"metrics_ready", "mine"}
    for columns in lines[start + 1 :]:
        if columns[0] in kinds:
            break
        rows.append([kind, *columns])
    return [columns[1:] for columns in rows]


def test_every_mount_point_is_in_the_table_in_firing_order_also_without_subscribers():
    table = subscriber_table(Bus())
    header, *lines = table.splitlines()
    assert header.split() == ["mount", "point", "priority", "mode", "subscriber", "filter"]
    assert [line.split() for line in lines] == [[point.kind, "-"] for point in MOUNT_POINTS]


async def test_blocking_subscribers_stand_in_the_order_of_their_calls_before_background_ones():
    bus = Bus()
    bus.subscribe(AfterTrainIter, one, mode="background", name="reporter")
    bus.subscribe(AfterTrainIter, two, every=50)
    bus.subscribe(AfterTrainIter, one, priority="HIGH", once=True, where=lambda event: True)
    assert rows_of(subscriber_table(bus), "after_train_iter") == [
        ["30", "blocking", "one", "where,", "once"],
        ["50", "blocking", "two", "every", "50"],
        ["-", "background", "reporter"],
    ]


def test_a_subscriber_of_a_base_class_stands_at_every_point_below_it():
    bus = Bus()
    bus.subscribe(BeforeTrainIter | AfterTrainIter, one)
    table = subscriber_table(bus)
    assert rows_of(table, "before_train_iter") == rows_of(table, "after_train_iter")


def test_other_events_and_the_users_own_follow_if_somebody_listens():
    bus = Bus()
    bus.subscribe(MetricsReady, one)
    bus.subscribe(Mine, two)
    last = [line.split()[0] for line in subscriber_table(bus).splitlines()[-2:]]
    assert last == ["metrics_ready", "mine"]


def test_the_runner_describes_its_bus():
    runner: Runner = fit(epochs(1))
    runner.subscribe(AfterTrainIter, one)
    assert runner.describe() == subscriber_table(runner.bus)
