from pathlib import Path

import pytest
from pydantic import ValidationError

from asyncrunner.errors import ConfigurationError
from asyncrunner.settings import Settings


def test_an_empty_environment_leaves_everything_to_the_script():
    assert Settings.from_environment({}) == Settings()
    assert Settings().to_environment() == {}


def test_every_setting_is_read_from_its_variable():
    settings = Settings.from_environment(
        {
            "ASYNCRUNNER_RUN_DIR": "runs/a",
            "ASYNCRUNNER_NAME": "a",
            "ASYNCRUNNER_SEED": "0",
            "ASYNCRUNNER_DEVICE": "cuda:1",
            "ASYNCRUNNER_COMPUTE": "thread",
            "ASYNCRUNNER_MAX_EPOCHS": "2",
            "ASYNCRUNNER_MAX_ITERS": "30",
            "ASYNCRUNNER_LIMIT_TRAIN": "4",
            "ASYNCRUNNER_LIMIT_VAL": "5",
            "ASYNCRUNNER_LIMIT_TEST": "6",
            "ASYNCRUNNER_SANITY": "2",
            "ASYNCRUNNER_RESUME": "never",
            "ASYNCRUNNER_REQUIRE_EXACT": "on",
            "ASYNCRUNNER_JOURNAL": "all",
            "ASYNCRUNNER_JOURNAL_MB": "100",
            "ASYNCRUNNER_GRACE": "2.5",
            "ASYNCRUNNER_DRY_RUN": "yes",
            "ASYNCRUNNER_LOG": "csv, tensorboard",
            "ASYNCRUNNER_STREAM": "redis://localhost nats://localhost",
            "ASYNCRUNNER_ALLOW_PRIVATE_WEBHOOKS": "1",
            "ASYNCRUNNER_PROGRESS": "plain",
            "ASYNCRUNNER_SERVE": "yes",
            "ASYNCRUNNER_PROFILE": "1",
            "ASYNCRUNNER_JSON_STDOUT": "true",
        }
    )
    assert settings == Settings(
        run_dir=Path("runs/a"),
        name="a",
        seed=0,
        device="cuda:1",
        compute="thread",
        max_epochs=2,
        max_iters=30,
        limit_train=4,
        limit_val=5,
        limit_test=6,
        sanity=2,
        resume="never",
        require_exact=True,
        journal="all",
        journal_mb=100,
        grace=2.5,
        dry_run=True,
        log="csv,tensorboard",
        stream="redis://localhost nats://localhost",
        allow_private_webhooks=True,
        progress="plain",
        serve=True,
        profile=True,
        json_stdout=True,
    )
    assert settings.model_fields_set == set(Settings.model_fields)


def test_settings_survive_the_way_through_the_environment():
    settings = Settings(run_dir=Path("a b"), seed=0, limit_val=1, dry_run=True, progress="none")
    assert Settings.from_environment(settings.to_environment()) == settings


def test_an_empty_variable_counts_as_not_set():
    assert Settings.from_environment({"ASYNCRUNNER_SEED": ""}) == Settings()


def test_variables_of_others_are_left_alone():
    assert Settings.from_environment({"PATH": "/bin", "ASYNCRUNNER_X": "1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MAX_EPOCHS", "ten", "a whole number, 1 or more"),
        ("MAX_ITERS", "0", "a whole number, 1 or more"),
        ("LIMIT_TRAIN", "-3", "a whole number, 1 or more"),
        ("SEED", "1.5", "a whole number from 0 to 4294967295"),
        ("SEED", "-1", "a whole number from 0 to 4294967295"),
        ("DEVICE", "GPU 3", "auto, cpu, cuda, cuda:1 or the like"),
        ("DRY_RUN", "maybe", "1 or 0 (or true, false, yes, no, on, off)"),
        ("PROGRESS", "fancy", "auto, rich, plain or none"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_was_expected(
    variable: str, value: str, expected: str
):
    with pytest.raises(ConfigurationError) as error:
        Settings.from_environment({f"ASYNCRUNNER_{variable}": value})
    assert str(error.value) == f"ASYNCRUNNER_{variable} must be {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("MAX_EPOCH", "ASYNCRUNNER_MAX_EPOCHS"),
        ("LIMIT", "ASYNCRUNNER_LIMIT_TRAIN or ASYNCRUNNER_LIMIT_VAL or ASYNCRUNNER_LIMIT_TEST"),
        ("JSON", "ASYNCRUNNER_JSON_STDOUT"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused(slip: str, meant: str):
    with pytest.raises(ConfigurationError) as error:
        Settings.from_environment({f"ASYNCRUNNER_{slip}": "1"})
    assert str(error.value) == f"ASYNCRUNNER_{slip} is not a setting (did you mean {meant}?)"


def test_the_command_line_wins_over_the_environment():
    from_environment = Settings.from_environment(
        {"ASYNCRUNNER_SEED": "1", "ASYNCRUNNER_NAME": "kept"}
    )
    assert from_environment.override(seed="2", name=None) == Settings(seed=2, name="kept")


def test_a_bad_value_on_the_command_line_is_named_as_it_was_typed():
    with pytest.raises(ConfigurationError, match=r"--max-epochs must be .*, got 'x'"):
        Settings().override(max_epochs="x")


def test_one_bad_limit_for_all_sets_is_said_once():
    with pytest.raises(ConfigurationError) as error:
        Settings().override(limit_train="x", limit_val="x", limit_test="x")
    assert str(error.value) == "--limit must be a whole number, 1 or more, got 'x'"


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().seed = 3
