"""Which checkpoints stay, the `latest` pointer, and what a killed process leaves."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
from faults import injected
from samples import about, save

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.manifest import Found, find_checkpoints
from asyncrunner.checkpoint.retention import (
    LATEST,
    clean_up,
    delete,
    point_latest,
    ranked,
    superfluous,
)


def found(iter: int, **fields: Any) -> Found:
    return Found(Path(str(iter)), about(iter, **fields))


def best(iter: int, value: float, metric: str = "loss") -> Found:
    return found(iter, purpose="best", metric=metric, metrics={metric: value})


def gone(all_of_them: list[Found], **policy: Any) -> list[int]:
    """Return the iterations of those that are to be deleted."""
    defaults: dict[str, Any] = {"by": "saver", "max_keep": 1, "best_k": 1, "rules": {}}
    return [f.manifest.iter for f in superfluous(all_of_them, **(defaults | policy))]


@pytest.mark.parametrize(
    ("max_keep", "expected"),
    [(None, []), (5, []), (2, [1, 2]), (1, [1, 2, 3]), (0, [1, 2, 3])],
)
def test_the_newest_regular_ones_stay_and_the_oldest_go_first(
    max_keep: int | None, expected: list[int]
):
    assert gone([found(n) for n in (3, 1, 4, 2)], max_keep=max_keep) == expected


def test_a_later_attempt_is_newer_wherever_it_began():
    assert gone([found(9, attempt=0), found(2, attempt=1)]) == [9]


def test_only_a_checkpointers_own_are_deleted():
    others = [found(1, by="other"), found(2, purpose="manual"), found(3, by="")]
    assert gone([*others, found(4), found(5)]) == [4]


def test_best_ones_do_not_count_as_regular_ones_nor_the_other_way_round():
    assert gone([best(1, 0.1), found(2), best(3, 0.2), found(4)]) == [2]
    assert gone([best(1, 0.1), found(2), best(3, 0.2)], rules={"loss": "less"}) == [3]


@pytest.mark.parametrize(("rule", "expected"), [("less", [3, 1]), ("greater", [2, 1])])
def test_the_worst_goes_first(rule: str, expected: list[int]):
    three = [best(1, 0.2), best(2, 0.1), best(3, 0.3)]
    assert gone(three, rules={"loss": rule}) == expected


def test_each_metric_has_its_own_best():
    both = [best(1, 0.1), best(2, 0.2), best(3, 0.9, "acc"), best(4, 0.8, "acc")]
    assert gone(both, rules={"loss": "less", "acc": "greater"}) == [2, 4]


@pytest.mark.parametrize("rule", ["less", "greater"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_nan_is_never_best(rule: Any, order: tuple[int, ...]):
    values = {1: math.nan, 2: 0.5, 3: -math.inf if rule == "greater" else math.inf}
    three = [best(n, values[n]) for n in order]
    assert [f.manifest.iter for f in ranked(three, "loss", rule)] == [2, 3, 1]
    assert gone(three, rules={"loss": rule}) == [1, 3]


def test_one_that_lacks_its_metric_is_never_best():
    lacking = found(1, purpose="best", metric="loss")
    assert gone([lacking, best(2, 0.5)], rules={"loss": "less"}) == [1]


@pytest.mark.parametrize("rule", ["less", "greater"])
def test_of_equals_the_older_one_is_better_in_whatever_order_they_come(rule: Any):
    for order in ((1, 2), (2, 1)):
        assert ranked([best(n, 0.5) for n in order], "loss", rule)[0].manifest.iter == 1


# The pointer


def test_latest_leads_to_the_checkpoint_and_can_be_moved_on(tmp_path: Path):
    for iter in (1, 2):
        save(tmp_path / f"iter_{iter}", iter)
        point_latest(tmp_path, f"iter_{iter}")
        assert os.readlink(tmp_path / LATEST) == f"iter_{iter}"
        assert read_checkpoint(tmp_path / LATEST)["iter"] == iter
    assert sorted(os.listdir(tmp_path)) == ["iter_1", "iter_2", LATEST]


def test_latest_is_exchanged_at_once_and_durable(tmp_path: Path):
    with injected(tmp_path) as fault:
        point_latest(tmp_path, "iter_1")
    assert fault.calls == [
        *("unlink .latest.PID.tmp", "symlink iter_1 .latest.PID.tmp"),
        *("replace .latest.PID.tmp latest", "open .", "fsync ."),
    ]


def test_a_directory_of_that_name_stays_and_no_link_is_left(tmp_path: Path):
    (tmp_path / LATEST).mkdir()
    with pytest.raises(IsADirectoryError):
        point_latest(tmp_path, "iter_1")
    assert os.listdir(tmp_path) == [LATEST]


@pytest.mark.parametrize("n", range(1, 6))
def test_an_error_while_pointing_leaves_the_old_pointer_or_the_new_one(tmp_path: Path, n: int):
    point_latest(tmp_path, "iter_1")
    with injected(tmp_path, f"fs:{n}:eio") as fault:
        try:
            point_latest(tmp_path, "iter_2")
        except OSError:
            assert n > 1
    assert os.readlink(tmp_path / LATEST) == ("iter_1" if 1 < n < 4 else "iter_2")
    assert os.listdir(tmp_path) == [LATEST]
    assert len(fault.calls) >= 5 or n > 1


# Deleting and cleaning up


def test_what_is_deleted_is_no_checkpoint_any_more_before_its_first_file_goes(tmp_path: Path):
    save(tmp_path / "iter_1")
    with injected(tmp_path) as fault:
        delete(tmp_path / "iter_1")
    changes = [call for call in fault.calls if not call.startswith("open")]
    assert changes == [
        *("unlink .iter_1.gone", "rename iter_1 .iter_1.gone"),
        *("unlink .iter_1.gone/manifest.json", "unlink .iter_1.gone/state.pt"),
        *("rmdir .iter_1.gone", "unlink .iter_1.gone"),
    ]
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_half_done_is_cleared_away_or_finished(tmp_path: Path):
    for name in (".a.1.tmp", ".b.old", ".c.gone", "d", ".d.old"):
        save(tmp_path / name)
    save(tmp_path / "d", 8)
    (tmp_path / ".latest.1.tmp").symlink_to("nowhere")
    (tmp_path / ".manifest.json.17.tmp").write_text("")
    clean_up(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["b", "d"]
    assert read_checkpoint(tmp_path / "b")["iter"] == 7
    assert read_checkpoint(tmp_path / "d")["iter"] == 8


def test_what_is_not_ours_is_left_alone(tmp_path: Path):
    names = {".gitignore", ".tmp", ".old", "notes.old", ".x.tmp", "model.1.tmp"}
    for name in names:
        (tmp_path / name).write_text("")
    save(tmp_path / "iter_1")
    clean_up(tmp_path)
    clean_up(tmp_path / "nowhere")
    assert set(os.listdir(tmp_path)) == names | {"iter_1"}
    assert [one.path.name for one in find_checkpoints(tmp_path)[0]] == ["iter_1"]
