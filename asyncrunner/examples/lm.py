"""A character GPT on the text of Python's own `help()`, which shows what it writes as it learns.

asyncrunner run lm.py

One to two minutes on two CPU cores. `Sampled` is this script's own event: one subscriber has the
model write and publishes the text, another prints it, and the journal keeps it with the rest.
"""

import math
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention
from torch.utils.data import DataLoader, Dataset

from asyncrunner import IterTrainLoop, Runner, ValLoop, events

TEXT = "\n\n".join(topics.values())
CHARACTERS = sorted(set(TEXT))
CONTEXT = 96
"""Characters that the model looks back at."""


class Sampled(events.Event):
    """Published when the model has written something."""

    text: str


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of features by angles that grow with the position (RoPE, arXiv 2104.09864)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Block(nn.Module):
    """Attention and then a perceptron, each added to what goes through."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False))
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, 4 * width)),
            *(nn.GELU(), nn.Linear(4 * width, width)),
        )

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Take and return `(batch, position, width)`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotated(q, angles), rotated(k, angles)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class GPT(nn.Module):
    """Predicts after each character of a text the next one."""

    angles: Tensor

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        frequencies = 10_000 ** -torch.linspace(0, 1, width // heads // 2)
        self.register_buffer("angles", torch.outer(torch.arange(CONTEXT), frequencies))

    def forward(self, ids: Tensor) -> Tensor:
        """Take `(batch, position)`, return logits `(batch, position, character)`."""
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.angles[: ids.shape[1]])
        return linear(self.norm(x), self.embedding.weight)

    @torch.no_grad()
    def write(self, length: int, temperature: float = 0.6) -> str:
        """Return a text that follows a line break."""
        ids = [CHARACTERS.index("\n")]
        for _ in range(length):
            seen = torch.tensor([ids[-CONTEXT:]], device=self.angles.device)
            probabilities = (self(seen)[0, -1] / temperature).softmax(dim=0)
            ids.append(int(torch.multinomial(probabilities, 1)))
        return "".join(CHARACTERS[i] for i in ids)


class Windows(Dataset[Tensor]):
    """Pieces of a text, each one character longer than the model's context.

    Args:
        text: The ids of its characters.
        stride: How far the beginnings are apart.
    """

    def __init__(self, text: Tensor, *, stride: int) -> None:
        self.text = text
        self.stride = stride

    def __len__(self) -> int:
        return (len(self.text) - CONTEXT - 1) // self.stride + 1

    def __getitem__(self, index: int) -> Tensor:
        begin = index * self.stride
        return self.text[begin : begin + CONTEXT + 1]


def data() -> tuple[Windows, Windows]:
    """Return every window of the text's first nine tenths, and side by side those of the last."""
    ids = {character: i for i, character in enumerate(CHARACTERS)}
    text = torch.tensor([ids[character] for character in TEXT])
    cut = len(text) * 9 // 10
    return Windows(text[:cut], stride=1), Windows(text[cut:], stride=CONTEXT)


def step(model: nn.Module, windows: Tensor) -> dict[str, Tensor]:
    """Return the loss; the same for training and validation."""
    logits = model(windows[:, :-1])
    return {"loss": cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())}


def build(iters: int = 1500, lr: float = 6e-3, batch_size: int = 12, every: int = 300) -> Runner:
    """Return the runner; `every` is how often it validates and writes, in iterations."""
    train, val = data()
    runner = Runner(
        GPT,
        optimizer=lambda model: torch.optim.AdamW(
            model.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.1
        ),
        train=IterTrainLoop(
            DataLoader(train, batch_size, shuffle=True), step, max_iters=iters, clip_norm=1.0
        ),
        val=ValLoop(DataLoader(val, batch_size=64), step, every=every),
        run_dir="runs/lm",
        log_every=50,
        seed=0,
    )

    @runner.on(events.BeforeTrainIter)
    def schedule(event: events.BeforeTrainIter) -> None:
        warm_up = min(1.0, (event.iter + 1) / 50)
        cosine = 0.5 + 0.5 * math.cos(math.pi * event.iter / (event.max_iters or iters))
        for group in runner.state.optimizers["default"].param_groups:
            group["lr"] = lr * warm_up * cosine

    @runner.on(
        events.AfterTrainIter,
        where=lambda event: event.is_last_iter or event.every_n_iters(every),
    )
    async def sample(event: events.AfterTrainIter) -> None:
        model = runner.state.model
        assert isinstance(model, GPT)
        await runner.publish(Sampled(text=model.write(length=400)))

    @runner.on(Sampled, mode="background")
    def show(event: Sampled) -> None:
        print(f"\n----- after {event.iter + 1} iterations -----\n{event.text}\n")

    return runner
