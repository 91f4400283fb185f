"""asyncrunner: what may wait is in the background."""

import asyncio

from torch import Tensor, nn

from asyncrunner import Checkpointer, EpochTrainLoop, Runner, events
from benchmarks import loop_overhead

from .work import KEPT, PATIENCE_S, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main


def train(work: Work) -> None:
    """Train with our runner."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return work.loss(model(inputs), targets)

    model = work.model()
    runner = Runner(
        model,
        optimizer=work.optimizer(model),
        train=EpochTrainLoop(work.batches(), step, max_epochs=1),
        device="cpu",
        progress="none",
        checkpoint=saving(work),
    )
    if work.case == "typical":
        loop_overhead.typical(runner)
    elif work.case == "slow":
        wait(runner)
    elif work.case == "reporter":
        runner.bus.drain_s = PATIENCE_S
        report(runner, work.job.port)
    runner.run()


def saving(work: Work) -> Checkpointer | None:
    """Return what saves, if that is the case; with fsync and checksums, which nobody else has."""
    if work.case != "checkpoint":
        return None
    return Checkpointer(SAVE_EVERY, max_keep=KEPT, last=False, folder=work.folder)


def wait(runner: Runner) -> None:
    """Subscribe a coroutine that waits in every iteration."""

    @runner.on(events.AfterTrainIter, mode="background")
    async def write(event: events.AfterTrainIter) -> None:
        await asyncio.sleep(WAIT_S)


def report(runner: Runner, port: int) -> None:
    """Subscribe a coroutine that posts and waits for an answer, however long that takes."""

    @runner.on(events.MetricsReady, mode="background", every=REPORT_EVERY)
    async def post(event: events.MetricsReady) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = event.to_json()
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        await reader.readline()


if __name__ == "__main__":
    main(train, "asyncrunner")
