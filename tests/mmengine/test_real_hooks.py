"""MMEngine's own hooks, unchanged, in our runner and in MMEngine's: they do the same in both.

Each case of `real/` does the same work with either runner, in an environment that has MMEngine 0.10.7.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from asyncrunner.mmengine.stages import STAGES

Real = dict[str, Any]
PAGE = Path(__file__).parents[2] / "asyncrunner" / "mmengine" / "README.md"


def result_of(real: Real, case: str) -> dict[str, Any]:
    """Return what a case found; a case that failed fails the test with its traceback."""
    found = real[case]
    assert "failed" not in found, found["failed"]
    return found


def calls_of(trace: list[Any]) -> list[Any]:
    """Return stage, counters and arguments of each call, without the model's mode."""
    return [call[:-1] for call in trace]


TRACES = ["trace_of_epochs", "trace_of_iterations", "trace_of_resuming"]


@pytest.mark.parametrize("case", [*TRACES, "checkpointer_calls_before_save"])
def test_the_methods_are_called_in_the_order_and_with_the_arguments_of_mmengine(
    real: Real, case: str
):
    found = result_of(real, case)
    assert calls_of(found["ours"]) == calls_of(found["theirs"])


def test_the_traces_have_all_22_stages(real: Real):
    stages = {call[0] for case in TRACES for call in result_of(real, case)["ours"]}
    assert stages == STAGES.keys()


@pytest.mark.parametrize("case", TRACES)
def test_the_models_mode_differs_only_after_a_validation_where_it_is_put_back(
    real: Real, case: str
):
    found = result_of(real, case)
    differing = [
        (ours, theirs)
        for ours, theirs in zip(found["ours"], found["theirs"], strict=True)
        if ours[-1] != theirs[-1]
    ]
    assert differing
    assert all(ours[-1] is True and theirs[-1] is False for ours, theirs in differing)
    assert not any(ours[0].endswith(("train_iter", "val_iter")) for ours, _ in differing)


@pytest.mark.parametrize(
    "case",
    [
        "ema",
        "early_stopping",
        "schedulers",
        "plateau",
        "runtime_info",
        "logs_of_epochs",
        "logs_of_iterations",
        "checkpoint_hook",
        "sampler_seed",
        "caches_and_buffers",
        "profiler",
        "tutorial",
    ],
)
def test_the_same_hooks_give_the_same_numbers_to_the_last_bit(real: Real, case: str):
    found = result_of(real, case)
    assert found["ours"] == found["theirs"]


def test_early_stopping_ends_the_run_before_its_end_and_the_stop_says_who_asked(real: Real):
    found = result_of(real, "early_stopping")
    assert found["ours"]["at"][0] < 30
    assert found["stops"] == [["EarlyStoppingHook", "stop_training was set"]]


def test_the_schedules_change_the_rate(real: Real):
    for case in ("schedulers", "plateau"):
        rates = [rate[0] for rate in result_of(real, case)["ours"]["rates"][::2]]
        assert len(set(rates)) > 1


def test_averages_differ_from_the_weights_and_validations_are_of_them(real: Real):
    found = result_of(real, "ema")["ours"]
    assert found["ema"]["module.net.0.weight"] != found["model"]["net.0.weight"]
    assert len(found["metrics"]) == 4


def test_a_loader_without_a_data_set_is_what_runtime_info_cannot_do_with(real: Real):
    found = result_of(real, "loader_without_a_data_set")
    assert found["error"] == "'list' object has no attribute 'dataset'"
    assert found["notes"][0].startswith("raised by subscriber 'RuntimeInfoHook'")


def test_mmengine_resumes_from_a_file_that_its_checkpoint_hook_wrote_here(real: Real):
    found = result_of(real, "mmengine_resumes_from_our_file")
    assert found["ours"] == found["theirs"]
    assert found["ours"]["at"] == [4, 20]


def test_a_run_resumed_from_our_checkpoint_with_hooks_has_the_numbers_of_one_never_stopped(
    real: Real,
):
    found = result_of(real, "our_checkpoints_hold_hooks")
    assert found["ours"] == found["theirs"]
    assert found["ours"]["count"] == 4
    assert len(found["ours"]["losses"]) == 20


def test_a_stop_inside_a_validation_leaves_no_averages_in_the_model(real: Real):
    found = result_of(real, "averages_after_a_stop_inside_a_validation")
    assert found["ours"] == found["theirs"]


def test_logs_need_no_directory(real: Real):
    assert result_of(real, "logs_without_a_directory") == {"lines": 6, "files": []}


def test_our_checkpoint_holds_the_averages_as_the_models_weights(real: Real):
    found = result_of(real, "our_checkpoint_has_the_averages")
    assert found["ours"] == found["theirs"]


def test_buffers_are_averaged_over_processes(real: Real):
    found = result_of(real, "buffers_of_two_processes")
    assert found["synced"][0] == found["synced"][1] == pytest.approx(found["mean"])


def test_pictures_are_drawn_by_the_visualizer_that_was_set(real: Real):
    assert result_of(real, "visualization")["drawn"] == [["one.png", [6, 4, 3]]]


def test_a_hook_that_takes_the_visualizer_when_it_is_made_draws_into_the_run_directory(real: Real):
    files = result_of(real, "a_visualizer_before_the_run")["files"]
    assert files == [f"one_{batch_idx}.png" for batch_idx in range(5)]


def test_a_hook_that_wraps_the_model_has_the_test_loop_go_on_with_what_it_made(real: Real):
    found = result_of(real, "tta")
    assert found["with"] == pytest.approx(2 * found["without"])


def test_an_invalid_loss_ends_both_runs_in_one_iteration_and_the_error_names_the_hook(real: Real):
    found = result_of(real, "invalid_loss")
    assert found["ours"] == found["theirs"] == 3
    assert re.match(r"raised by subscriber 'CheckInvalidLossHook' \(", found["ours notes"][0])


def test_the_page_says_of_every_hook_of_mmengine_whether_it_works(real: Real):
    names = result_of(real, "all_of_them")["names"]
    assert len(names) > 10
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.M)
    assert sorted(rows) == sorted(names)
