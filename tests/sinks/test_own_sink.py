"""Sinks of somebody else's, found by their entry points; MQTT is the example."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import pytest
from pings import pings
from sent import send_all, sent_to
from servers import Server

from asyncrunner.cli.doctor import doctor
from asyncrunner.errors import ConfigurationError
from asyncrunner.sinks.sink import find_sink
from asyncrunner.sinks.urls import SinkURL

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with an entry point; the files are those that pip writes."""

    def install(scheme: str, value: str) -> None:
        folder = tmp_path / "site" / f"{scheme}_sink-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: {scheme}_sink\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[asyncrunner.sinks]\n{scheme} = {value}\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])

    return install


@pytest.fixture
def mqtt_installed(install: Install) -> None:
    install("mqtt", "asyncrunner.examples.mqtt_sink:mqtt_sink")


def test_the_example_is_sixty_lines():
    import asyncrunner.examples.mqtt_sink as example

    assert len(Path(str(example.__file__)).read_text("utf-8").splitlines()) <= 70


@pytest.mark.usefixtures("mqtt_installed")
async def test_a_run_comes_out_of_an_mqtt_broker(mqtt: Server, run_dir: Path):
    pings(run_dir, range(100))
    async with aiomqtt.Client("127.0.0.1", mqtt.port) as listening:
        await listening.subscribe("asyncrunner/r/#", qos=1)

        await send_all(run_dir, f"mqtt://127.0.0.1:{mqtt.port}")

        heard = [await anext(aiter(listening.messages)) for _ in range(100)]
    lines = (run_dir / "events.jsonl").read_bytes().splitlines()
    assert [message.payload for message in heard] == lines
    assert {str(message.topic) for message in heard} == {"asyncrunner/r/0/metrics_ready"}


@pytest.mark.usefixtures("mqtt_installed")
async def test_after_an_outage_a_listener_gets_what_waited_in_the_journal(
    mqtt: Server, run_dir: Path
):
    mqtt.kill()
    async with sent_to(run_dir, f"mqtt://127.0.0.1:{mqtt.port}") as run:
        run.publish(range(50))
        while not run.said:
            await run.turn()
        mqtt.start()
        async with aiomqtt.Client("127.0.0.1", mqtt.port) as listening:
            await listening.subscribe("asyncrunner/#", qos=1)
            run.publish([50])
            seqs = {await next_seq(listening)}
            while 50 not in seqs:
                seqs.add(await next_seq(listening))

    assert seqs == {*range(min(seqs), 51)}
    assert run.said[-1].endswith("takes events again")


async def next_seq(listening: aiomqtt.Client) -> int:
    async with asyncio.timeout(20):
        message = await anext(aiter(listening.messages))
    return int(json.loads(bytes(message.payload))["id"])


def test_a_package_that_cannot_be_loaded_is_named(install: Install):
    install("pigeon", "no_such_module:sink")

    with pytest.raises(ConfigurationError, match=r"the sink 'pigeon' \(no_such_module:sink\)"):
        find_sink(SinkURL.parse("pigeon://roof"))


def test_the_doctor_lists_sinks_and_loads_none(
    install: Install, capsys: pytest.CaptureFixture[str]
):
    install("pigeon", "no_such_module:sink")

    doctor()

    line = f"{'sink pigeon://':<28}no_such_module:sink of pigeon_sink"
    assert line in capsys.readouterr().out.splitlines()


def test_what_is_no_sink_is_refused(install: Install):
    install("text", "builtins:str")

    with pytest.raises(ConfigurationError, match="must have open, send and close, got 'text://a'"):
        find_sink(SinkURL.parse("text://a"))
