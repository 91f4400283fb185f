"""A run's journal once more, into writers, brokers and webhooks that were not there.

part       which of its events, and how fast
target     where to, found by the names of `--log` and the URLs of `--stream`
files      a writer, whose files are put in place when they are whole
brokers    a sink, which is given nothing that it has

Nothing here imports torch. README.md beside this file says what it is for.
"""
