"""What the killed process trains: `asyncrunner run train_script.py`."""

import faults
import torch
from resume.training import training

from asyncrunner import Checkpointer, Runner

MAX_KEEP = 2


def build(loader: str = "shuffled", threads: int = 1) -> Runner:
    """Save often, and keep few; meet the fault that the environment names, if any."""
    torch.set_num_threads(threads)
    saves = Checkpointer((5, "1ep"), max_keep=MAX_KEEP, best={"plain/error": "less"})
    runner = training("epochs", loader, checkpoint=saves).runner
    faults.attach(runner)
    return runner
