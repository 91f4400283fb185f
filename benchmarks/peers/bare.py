"""The plain PyTorch loop, without anything that a case asks for: what all others are compared to."""

from .work import Work, main


def train(work: Work) -> None:
    """Train as one would by hand."""
    model = work.model()
    optimizer = work.optimizer(model)
    model.train()
    for inputs, targets in work.batches():
        loss = work.loss(model(inputs), targets)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.zero_grad()


if __name__ == "__main__":
    main(train)
