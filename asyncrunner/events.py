"""The events: the same classes as in `asyncrunner_events`, under the runner's own name."""

from asyncrunner_events import *  # noqa: F403  # everything public, and nothing of our own
