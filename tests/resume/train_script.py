"""What the killed process trains: `asyncrunner run train_script.py`."""

from resume.training import training

from asyncrunner import Checkpointer, Runner

MAX_KEEP = 2


def build(loader: str = "shuffled") -> Runner:
    """Save often, and keep few."""
    saves = Checkpointer((5, "1ep"), max_keep=MAX_KEEP, best={"plain/error": "less"})
    return training("epochs", loader, checkpoint=saves).runner
