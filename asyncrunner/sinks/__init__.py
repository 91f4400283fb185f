"""A run's events sent to brokers and webhooks, from a process of its own that reads what the run has written.

urls         where to, and what of it is secret
sink         what takes lines elsewhere, and how one is found
nats, redis, webhook    those
shipping     from the journal to a sink, whatever becomes of it
bookmark     how far it is
sending      several of them side by side
ending       how such a process ends
child        such a process beside a run

Nothing here imports torch, and nothing in the process that trains waits for it.
"""
