"""Draws what ran when in a few iterations of a real run, from its trace.

    python -m benchmarks.timeline [--compute thread]

Trains a small model on scikit-learn's digits with `ASYNCRUNNER_PROFILE=1`, with one blocking subscriber and
two in the background, and draws `timeline.svg` beside this file from the `trace.json` of that run.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop, Runner, events

SVG = Path(__file__).with_name("timeline.svg")
SHOWN = 5
"""Iterations that are drawn."""
LEFT, WIDTH, ROW = 190, 900, 26
COLOURS = {"iteration": "#dfe3e8", "step": "#7aa6da", "check": "#e0a458"}


def train_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


async def profile(run_dir: Path, compute: Any) -> None:
    """Train with a timeline."""
    digits: Any = import_module("sklearn.datasets").load_digits()
    images: Any = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels: Any = torch.tensor(digits.target)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 10)),
    )
    batches = list(zip(images.split(128), labels.split(128), strict=True))
    runner = Runner(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train=EpochTrainLoop(batches, train_step, max_epochs=3),
        run_dir=run_dir,
        progress="none",
        compute=compute,
    )

    @runner.on(events.AfterTrainIter)
    def check(event: events.AfterTrainIter) -> None:
        time.sleep(0.001)

    @runner.on(events.MetricsReady, mode="background", name="report (waits 3 ms)")
    async def report(event: events.MetricsReady) -> None:
        await asyncio.sleep(0.003)

    @runner.on(events.AfterTrainIter, mode="background", name="write (a thread, 5 ms)")
    def write(event: events.AfterTrainIter) -> None:
        time.sleep(0.005)

    await runner.train()


def svg_of(trace: dict[str, Any]) -> str:
    """Return the picture of some iterations in the middle."""
    lanes: dict[int, str] = {}
    spans: list[dict[str, Any]] = []
    for event in trace["traceEvents"]:
        if event["name"] == "thread_name":
            lanes[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "X" and event["name"] != "epoch":
            spans.append(event)
    iterations = [span for span in spans if span["name"] == "iteration"]
    shown = iterations[len(iterations) // 2 :][:SHOWN]
    start, end = shown[0]["ts"], shown[-1]["ts"] + shown[-1]["dur"]
    scale = WIDTH / (end - start)
    used = {span["tid"] for span in spans if start <= span["ts"] < end}
    rows = {tid: row for row, tid in enumerate(tid for tid in lanes if tid in used)}
    height = ROW * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 10} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for tid, row in rows.items():
        parts.append(f'<text x="8" y="{ROW * row + 27}">{escape(lanes[tid])}</text>')
    for span in spans:
        began, ended = max(span["ts"], start), min(span["ts"] + span["dur"], end)
        if began >= ended or span["tid"] not in rows:
            continue
        x, width = LEFT + (began - start) * scale, max((ended - began) * scale, 0.5)
        name, y = span["name"], ROW * rows[span["tid"]] + 12
        colour = COLOURS.get(name, "#8bbf7f")
        inset = 0 if name == "iteration" else 3
        title = f"<title>{escape(name)}: {span['dur'] / 1e3:.2f} ms</title>"
        parts.append(
            f'<rect x="{x:.1f}" y="{y + inset}" width="{width:.1f}" height="{20 - 2 * inset}" '
            f'fill="{colour}">{title}</rect>'
        )
    ms = (end - start) / 1e3
    parts.append(
        f'<text x="{LEFT}" y="{height - 10}">{len(shown)} iterations, {ms:.1f} ms: grey the '
        "iteration, blue the step, orange a blocking subscriber, green the background</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Train, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--out", type=Path, default=SVG)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["ASYNCRUNNER_PROFILE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(profile(Path(folder), options.compute))
        trace = json.loads(Path(folder, "trace.json").read_text("utf-8"))
    options.out.write_text(svg_of(trace), "utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
