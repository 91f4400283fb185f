import json
import statistics
import subprocess
import sys
from pathlib import Path

import asyncrunner_events

EVENTS_FOLDER = Path(__file__).parents[2] / "events"
NEEDED = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}

LOADED = """
import json, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import asyncrunner_events
event = asyncrunner_events.MetricsReady(metrics={"loss": 0.5})
assert asyncrunner_events.parse(event.to_json()) == event
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""

TIMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
began = time.process_time_ns()
import asyncrunner_events
print(time.process_time_ns() - began)
"""

PYDANTIC_ALONE = """
import time
began = time.process_time_ns()
from pydantic import BaseModel
class Model(BaseModel):
    number: int
print(time.process_time_ns() - began)
"""

MANY_THREADS = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from asyncrunner_events import MetricsReady, parse
start, read = threading.Barrier(8), []
def work():
    start.wait()
    event = MetricsReady(metrics={"loss": 0.5})
    read.append(parse(event.to_json()) == event)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(read)
"""


def run_isolated(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-c", program, str(EVENTS_FOLDER)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_writing_and_reading_events_needs_pydantic_and_nothing_else():
    loaded = {name for name in json.loads(run_isolated(LOADED)) if "_sysconfigdata" not in name}
    assert loaded - sys.stdlib_module_names == NEEDED | {"asyncrunner_events"}


def test_importing_the_events_takes_less_than_150_ms():
    # Processor time, so that what else the machine does counts less; on a machine so slow or so
    # busy that pydantic alone takes its time, twice of that.
    ours: list[int] = []
    pydantics: list[int] = []
    for _ in range(5):
        ours.append(int(run_isolated(TIMED)))
        pydantics.append(int(run_isolated(PYDANTIC_ALONE)))
    limit_ns = max(150_000_000, 2 * statistics.median(pydantics))
    assert statistics.median(ours) < limit_ns, (ours, pydantics)


def test_the_first_events_may_be_built_by_many_threads_at_once():
    assert json.loads(run_isolated(MANY_THREADS).lower()) == [True] * 8


def test_the_public_names_are_sorted_and_there():
    names = asyncrunner_events.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(asyncrunner_events, name) for name in names)
    # CONSTANTS, Classes, functions: the order that ruff keeps
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))


def test_every_event_class_is_public():
    events = {event.__name__ for event in asyncrunner_events.EVENTS}
    assert events <= set(asyncrunner_events.__all__)


def test_the_package_says_that_it_is_typed():
    assert (EVENTS_FOLDER / "asyncrunner_events" / "py.typed").exists()
