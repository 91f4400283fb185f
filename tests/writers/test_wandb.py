import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from toys import epochs, seen
from written import Point, points_of, results, stop_after, trained

from asyncrunner.events import SubscriberFailed
from asyncrunner.writers import WandB


class Offline(NamedTuple):
    """What W&B has written into the folder of one start."""

    run_id: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    exit_code: int | None
    x_axes: dict[str, str]


def folders(run_dir: Path) -> list[Offline]:
    """Return what `wandb sync` would send, of each start of the run."""
    paths = sorted((run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
    return [offline(path) for path in paths]


def offline(path: Path) -> Offline:
    protos: Any = import_module("wandb.proto.wandb_internal_pb2")
    run_id, config, rows, exit_code = "", dict[str, Any](), list[dict[str, Any]](), None
    x_axes: dict[str, str] = {}
    for data in records_in(path.read_bytes()):
        record = protos.Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run_id = record.run.run_id
                config = {one.key: json.loads(one.value_json) for one in record.run.config.update}
            case "history":
                row: dict[str, Any] = {}
                for one in record.history.item:
                    *names, last = one.nested_key or [one.key]
                    within = row
                    for name in names:
                        within = within.setdefault(name, {})
                    within[last] = json.loads(one.value_json)
                rows.append(row)
            case "exit":
                exit_code = record.exit.exit_code
            case "metric" if record.metric.step_metric:
                x_axes[record.metric.glob_name] = record.metric.step_metric
            case _:
                pass
    return Offline(run_id, config, rows, exit_code, x_axes)


def records_in(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log, which a .wandb file is, behind its header."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def points_in(one: Offline) -> list[Point]:
    return sorted(
        Point(name, row["global_iter"], row[name])
        for row in one.rows
        for name in ("train/loss", "val/error")
        if name in row
    )


def test_an_offline_run_holds_every_number_of_the_journal(tmp_path: Path):
    trained(tmp_path, WandB("lines", tags=["test"]), seed=3).run()
    (one,) = folders(tmp_path)
    events = results(tmp_path / "events.jsonl")
    assert points_in(one) == points_of(events)
    assert one.run_id == json.loads((tmp_path / "run.json").read_text())["run"]
    assert one.config["seed"] == 3
    assert one.config["train"]["max_epochs"] == 3
    assert one.exit_code == 0
    assert [(row["_step"], row["global_iter"], row["epoch"], row["iter"]) for row in one.rows] == [
        *((0, 1, 0, 0), (1, 2, 0, 1), (2, 2, 1, 2)),
        *((3, 3, 1, 2), (4, 4, 1, 3), (5, 4, 2, 4)),
        *((6, 5, 2, 4), (7, 6, 2, 5), (8, 6, 3, 6)),
    ]
    assert one.x_axes == {"*": "global_iter"}
    assert one.rows[0]["_timestamp"] == pytest.approx(events[0].time_ns / 1e9)


def test_a_run_that_fails_is_marked_as_failed_with_everything_written(tmp_path: Path):
    runner = trained(tmp_path, "wandb")
    stop_after(runner, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        runner.run()
    (one,) = folders(tmp_path)
    assert one.exit_code == 1
    assert points_in(one) == points_of(results(tmp_path / "events.jsonl"))


def test_the_newest_folder_of_a_resumed_run_holds_all_of_it_once(tmp_path: Path):
    runner = trained(tmp_path, "wandb")
    stop_after(runner, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        runner.run()
    trained(tmp_path, "wandb").run()
    first, second = folders(tmp_path)
    assert first.run_id == second.run_id
    events = results(tmp_path / "events.jsonl")
    again = [event for event in events if event.attempt == 0] + [
        event for event in events if event.attempt == 1 and event.iter >= 4
    ]
    validated = [event for event in events if event.attempt == 1 and event.dataset == "val"]
    expected = {(point.name, point.x): point for point in points_of([*again, *validated])}
    assert points_in(second) == sorted(expected.values())
    assert len(points_in(second)) == 9


def test_a_run_that_begins_anew_is_another_run(tmp_path: Path):
    trained(tmp_path, "wandb", train=epochs(1)).run()
    trained(tmp_path, "wandb", train=epochs(1), resume="never").run()
    first, *_, last = folders(tmp_path)
    assert last.run_id == f"{first.run_id}-1"
    assert [row["global_iter"] for row in last.rows] == [1, 2, 2]


def test_a_server_that_is_down_stops_nothing_and_the_next_start_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    wandb: Any = import_module("wandb")
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)
    wandb.teardown()  # it reads the environment once
    with monkeypatch.context() as online:
        online.setenv("WANDB_MODE", "online")
        online.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
        online.setenv("WANDB_API_KEY", "0" * 40)
        impatient = wandb.Settings(init_timeout=0.5, silent=True)
        runner = trained(tmp_path, WandB(settings=impatient))
        failures = seen(runner, SubscriberFailed)
        runner.run()
    assert len(failures) <= 1
    assert "writer 'wandb' is 9 results behind" in caplog.text
    trained(tmp_path, "wandb").run()
    expected = points_of(results(tmp_path / "events.jsonl"))
    assert len(expected) == 9
    assert points_in(folders(tmp_path)[-1]) == expected


def test_a_name_too_long_for_it_is_cut_and_stays_unique(tmp_path: Path):
    trained(tmp_path / "a", "wandb", name="n" * 80).run()
    trained(tmp_path / "b", "wandb", name="n" * 80).run()
    ids = [folders(tmp_path / name)[0].run_id for name in "ab"]
    assert len(set(ids)) == 2
    assert all(len(one) == 64 for one in ids)
