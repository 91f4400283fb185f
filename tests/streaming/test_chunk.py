import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncrunner.streaming.chunk import Chunk, text_frame
from asyncrunner.streaming.filters import Filter, without_older_telemetry
from asyncrunner_events.segments import Position


def ours(attempt: int, seq: int, run: str = "r", **data: object) -> bytes:
    """Return a line as asyncrunner writes it."""
    source = f"/asyncrunner/runs/{run}/attempts/{attempt}/ranks/0"
    told = json.dumps(data, separators=(",", ":"))
    return (
        f'{{"specversion":"1.0","id":"{seq}","source":"{source}",'
        f'"type":"dev.asyncrunner.a.v1","kind":"a","sequence":"{seq:020d}","data":{told}}}\n'
    ).encode()


def foreign(attempt: int, seq: int) -> bytes:
    """Return a line as another writer may."""
    source = f"/asyncrunner/runs/r/attempts/{attempt}/ranks/0"
    return (
        json.dumps({"id": str(seq), "sequence": f"{seq:020d}", "source": source})
        .replace(": ", ":")
        .encode()
        + b"\n"
    )


TRICKY: tuple[dict[str, Any], ...] = (
    {"text": 'id: 7\n\ndata: {"specversion":"1.0","id":"9"'},
    {
        "nested": {
            "specversion": "1.0",
            "id": "3",
            "source": "/asyncrunner/runs/r/attempts/9/ranks/0",
        }
    },
    {},
)


@given(
    st.lists(
        st.one_of(
            st.builds(ours, st.integers(0, 3), st.integers(0, 999), st.sampled_from("rs")),
            st.builds(foreign, st.integers(0, 3), st.integers(0, 999)),
            st.sampled_from([ours(0, 5, **data) for data in TRICKY]),
            st.just(b"no event\n"),
        ),
        max_size=8,
    )
)
def test_every_event_has_its_position_as_its_id(lines: list[bytes]):
    positions = [(Position.of(line), line) for line in lines]
    expected = [f"id: {at}\ndata: ".encode() + line for at, line in positions if at is not None]
    assert Chunk(b"".join(lines), Position(3, 999)).sse == b"".join(one + b"\n" for one in expected)


@given(st.binary(max_size=300), st.sampled_from([0, 125, 126, 65535, 65536]))
def test_a_frame_says_how_long_it_is_in_as_few_bytes_as_it_may(text: bytes, pad: int):
    payload = text.ljust(pad)
    frame = text_frame(payload)
    assert frame.endswith(payload)
    header = len(frame) - len(payload)
    assert header == (2 if len(payload) < 126 else 4 if len(payload) < 65536 else 10)
    size = frame[1] if header == 2 else int.from_bytes(frame[2:header], "big")
    assert (frame[0], size) == (0x81, len(payload))


def test_what_two_clients_want_alike_is_worked_out_once():
    chunk = Chunk(b"".join(ours(0, seq) for seq in range(9)), Position(0, 8))
    assert chunk.only(Filter(["b"])) is chunk.only(Filter(types=["b"]))
    assert chunk.only(Filter()) is chunk
    assert not chunk.only(Filter(["b"])).lines


def test_a_chunk_after_a_position_has_only_what_follows_it():
    lines = [ours(0, 8), ours(0, 9), ours(1, 0), ours(1, 1)]
    chunk = Chunk(b"".join(lines), Position(1, 1))
    assert chunk.after(None) is chunk
    assert chunk.after(Position(0, 7)) is chunk
    assert chunk.after(Position(0, 9)).lines == lines[2:]
    assert chunk.after(Position(1, 1)).lines == []


def test_only_telemetry_grows_old():
    kinds = ["metrics_ready", "after_train_epoch", "metrics_ready", "after_train_epoch", "unknown"]
    lines = [b'{"kind":"%b"}\n' % kind.encode() for kind in kinds]
    assert without_older_telemetry(lines) == lines[1:]
