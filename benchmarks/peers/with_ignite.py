"""pytorch-ignite: `create_supervised_trainer`, handlers, and its `Checkpoint`."""
# pyright: basic, reportMissingImports=false
# ignite is installed in an environment of its own, not where this is checked.

import time

from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver

from .work import KEPT, LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main


def train(work: Work) -> None:
    """Train with ignite's own supervised step."""
    model = work.model()
    optimizer = work.optimizer(model)
    trainer = create_supervised_trainer(model, optimizer, work.loss)
    if work.case == "typical":
        add_counters(trainer, work)
    elif work.case == "slow":
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: time.sleep(WAIT_S))
    elif work.case == "checkpoint":
        saver = DiskSaver(str(work.folder), create_dir=True, require_empty=False)
        objects = {"model": model, "optimizer": optimizer, "trainer": trainer}
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(every=SAVE_EVERY), Checkpoint(objects, saver, n_saved=KEPT)
        )
    elif work.case == "reporter":

        @trainer.on(Events.ITERATION_COMPLETED(every=REPORT_EVERY))
        def report(engine: Engine) -> None:
            work.report(engine.state.iteration)

    trainer.run(work.batches(), max_epochs=1)


def add_counters(trainer: Engine, work: Work) -> None:
    """Add three handlers that count, and one that logs."""

    @trainer.on(Events.ITERATION_STARTED)
    def before(engine: Engine) -> None:
        work.counts[0] += 1

    @trainer.on(Events.ITERATION_COMPLETED)
    def after(engine: Engine) -> None:
        work.counts[1] += 1

    @trainer.on(Events.ITERATION_COMPLETED)
    def also_after(engine: Engine) -> None:
        work.counts[2] += 1

    @trainer.on(Events.ITERATION_COMPLETED(every=LOG_EVERY))
    def log(engine: Engine) -> None:
        work.log(engine.state.iteration, engine.state.output)


if __name__ == "__main__":
    main(train, "pytorch-ignite")
