import pytest

from asyncrunner.errors import ConfigurationError
from asyncrunner.sinks.urls import SinkURL


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0?prefix=a", "redis://localhost:6379/0?prefix=a"),
        ("redis://me:pass@localhost", "redis://***@localhost"),
        ("nats://token@localhost", "nats://***@localhost"),
        ("mqtt://host?password=pass&retain=1", "mqtt://host?password=***&retain=1"),
        ("https://hooks.example.com/T0/B0/s3cret", "https://hooks.example.com/***"),
        ("https://me:pass@example.com?s=cret", "https://***@example.com/***"),
        ("https://example.com", "https://example.com"),
    ],
)
def test_what_is_secret_in_a_url_is_not_shown(url: str, shown: str):
    assert SinkURL.parse(url).shown == shown


def test_a_variable_in_a_url_is_its_value_whatever_is_in_it():
    url = SinkURL.parse("redis://lab:${PASSWORD}@h:1", {"PASSWORD": "p@ss/word:1"})

    assert url.text == "redis://lab:p%40ss%2Fword%3A1@h:1"
    assert (url.host, url.port, url.shown) == ("h", 1, "redis://***@h:1")


def test_a_new_password_does_not_change_the_name_of_a_sinks_file_and_another_place_does():
    name = SinkURL.parse("redis://me:old@h:1/0").name

    assert name.startswith("redis-h-1-")
    assert SinkURL.parse("redis://me:new@h:1/0").name == name
    assert SinkURL.parse("redis://h:1/0").name == name
    assert SinkURL.parse("redis://h:1/2").name != name
    assert "s3cret" not in SinkURL.parse("https://h/s3cret").name


def test_secrets_are_taken_out_of_what_a_library_says():
    redis = SinkURL.parse("redis://me:p%40ss-word@h:1/0")
    hook = SinkURL.parse("https://h/T0/s3cret")

    assert redis.scrub("no access for p@ss-word (p%40ss-word)") == "no access for *** (***)"
    assert redis.scrub("cannot reach redis://me:p%40ss-word@h:1/0") == "cannot reach ***"
    assert (
        hook.scrub("404 for https://h/T0/s3cret, that is /T0/s3cret") == "404 for ***, that is ***"
    )


@pytest.mark.parametrize(
    "text", ["", "redis", "redis:", "redis://", "localhost:6379", "redis://a b"]
)
def test_what_is_no_url_is_refused(text: str):
    with pytest.raises(ConfigurationError, match="a sink is a URL, as in redis://localhost:6379"):
        SinkURL.parse(text)
