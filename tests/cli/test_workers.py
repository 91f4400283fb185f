import pytest
from commands import Command, Write

SCRIPT = """
import sys
import torch
from torch.utils.data import DataLoader, Dataset
from asyncrunner import EpochTrainLoop, Runner, ValLoop, events

torch.set_num_threads(1)

class Data(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((2,), float(index))

def loader(start_method):
    return DataLoader(Data(), batch_size=2, num_workers=1, multiprocessing_context=start_method)

def train_step(model, batch):
    return model(batch).pow(2).mean()

def val_step(model, batch):
    return {"size": batch.mean()}

def build():
    runner = Runner(
        torch.nn.Linear(2, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        train=EpochTrainLoop(loader("spawn"), train_step, max_epochs=1),
        val=ValLoop(loader("fork"), val_step),
        progress="none",
    )
    runner.subscribe(events.AfterTrainIter, lambda event: print("iter", event.iter))
    runner.subscribe(events.AfterValIter, lambda event: print("val", event.batch_idx))
    return runner
"""


@pytest.mark.parametrize(
    "start",
    [
        "def make() -> Runner:\n    return build()\n",
        "if __name__ == '__main__':\n    build().run()\n",
    ],
    ids=["imported", "as main"],
)
def test_workers_of_a_data_loader_find_the_script_spawned_and_forked(
    process: Command, write: Write, start: str
):
    write(SCRIPT, start)
    done = process("run", "train.py")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == ["iter 0", "iter 1", "val 0", "val 1"]
