"""The smallest script: a line through points, without any data.

asyncrunner run plain.py
"""

import torch
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop, Runner, events


def train_step(model: nn.Module, points: Tensor) -> Tensor:
    """Return the error of the line at these points, against y = 2x + 1."""
    return nn.functional.mse_loss(model(points), 2 * points + 1)


line = nn.Linear(1, 1)
runner = Runner(
    line,
    optimizer=torch.optim.SGD(line.parameters(), lr=0.1),
    train=EpochTrainLoop(torch.randn(10, 64, 1), train_step, max_epochs=5),
)


@runner.on(events.AfterTrainEpoch)
def show(event: events.AfterTrainEpoch) -> None:
    """Print the line after every epoch."""
    print(f"epoch {event.epoch}: y = {line.weight.item():.3f} x + {line.bias.item():.3f}")


if __name__ == "__main__":
    runner.run()
