"""Writers of a run without a journal, which get their events from the bus."""

import pytest
from lists import ListWriter
from test_writing import WHOLE
from toys import seen
from written import trained

from asyncrunner.events import AfterTrainIter, EventsDropped, ImageSaved


class Pictured(ListWriter):
    """Takes pictures."""

    takes_pictures = True


class Resent(Pictured):
    """Is sent its last iteration again."""

    sends_again = True


@pytest.mark.parametrize("kind", [ListWriter, Pictured, Resent])
def test_events_that_move_no_writer_on_take_no_room_from_those_that_do(
    monkeypatch: pytest.MonkeyPatch, kind: type[ListWriter]
):
    monkeypatch.setattr("asyncrunner.writers.sources.MOST_WAITING", 8)
    writer = kind()
    runner = trained(None, writer)
    runner.bus.drain_s = 5
    drops = seen(runner, EventsDropped)

    def save(event: AfterTrainIter) -> None:
        for _ in range(100):
            runner.bus.publish_threadsafe(ImageSaved(path="a.png", tag="a", batch_idx=0))

    runner.subscribe(AfterTrainIter, save, once=True)
    runner.run()
    assert [place for place in writer.places if place[0] != "images/a"] == WHOLE
    assert drops == []
    assert writer.closed == ["finished"]
