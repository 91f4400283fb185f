"""One realistic instance of every event, as it would be read from a journal."""

from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from .base import Event
from .wire import EVENTS

__all__ = ["example"]

_STAMP = {
    "run": "digits",
    "attempt": 0,
    "rank": 0,
    "seq": 1286,
    "time_ns": 1_795_512_600_123_456_789,  # 2026-11-24 09:30 UTC
    "monotonic_ns": 86_400_123_456_789,
}

# Five epochs of 225 batches; epoch, iter and stage where it is not the second epoch's 88th batch.
_POSITIONS: dict[str, tuple[int, int, str | None]] = {
    "before_run": (0, 0, None),
    "after_load_checkpoint": (0, 0, None),
    "before_train": (0, 0, "train"),
    "before_train_epoch": (1, 225, "train"),
    "after_train_epoch": (1, 450, "train"),
    "val": (2, 450, "val"),
    "checkpoint": (2, 450, "train"),
    "resumed": (2, 450, None),
    "after_train": (5, 1125, "train"),
    "test": (5, 1125, "test"),
    "after_run": (5, 1125, None),
}

_TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "train.py", line 31, in train_step\n'
    "    loss = cross_entropy(model(images), labels)\n"
    "{error}\n"
)
_NO_SPACE = "OSError: [Errno 28] No space left on device"
_NO_ANSWER = "TimeoutError: no answer from the server within 5 s"
_TOO_LARGE = "RuntimeError: a batch of 8 images is expected, got 7"

_METRICS = {"val/accuracy": 0.9722, "val/loss": 0.0914}
_CHECKPOINT = "runs/digits/checkpoints/epoch_2"
_VALUES: dict[str, dict[str, Any]] = {
    "": {  # by the field's name alone
        "batch_idx": 87,
        "num_batches": 225,
        "path": _CHECKPOINT,
        "subscriber": "upload",
        "module": "layer3.0.conv1",
        "module_class": "Conv2d",
        "input_shapes": [[8, 16, 14, 14]],
        "output_shapes": [[8, 32, 14, 14]],
        "dtypes": ["torch.float32"],
    },
    "after_val_epoch": {"metrics": _METRICS},
    "after_test_epoch": {"metrics": {"test/accuracy": 0.9694, "test/loss": 0.1027}},
    "metrics_ready": {
        "metrics": {"loss": 0.2718},
        "lr": {"default": 0.001},
        "data_time_s": 0.000412,
        "step_time_s": 0.003817,
        "subscriber_time_s": 0.000009,
    },
    "stop_requested": {"reason": "no better val/loss for 5 epochs", "by": "early_stopping"},
    "epoch_end_requested": {"reason": "this shard is exhausted", "by": "curriculum"},
    "step_skipped": {"reason": "the loss is nan", "by": "NaNGuard"},
    "step_failed": {"error": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB"},
    "batch_skipped": {"reason": "it does not fit into memory", "by": "OutOfMemory"},
    "batch_split": {"reason": "it does not fit into memory", "by": "OutOfMemory", "pieces": 2},
    "save_requested": {"reason": "SIGUSR2", "by": "watch_signals"},
    "run_paused": {"reason": "the machine is needed", "by": "root"},
    "run_continued": {"reason": "done", "by": "root", "paused_s": 61.5},
    **{
        f"{verb}_command": {"command_id": "8f14e45f", "by": "root, pid 4711", "reason": reason}
        for verb, reason in (
            ("stop", "the plot looks wrong"),
            ("pause", "the machine is needed"),
            ("resume", "done"),
            ("checkpoint", "before the maintenance"),
        )
    },
    "set_learning_rate_command": {"command_id": "45c48cce", "by": "root, pid 4711", "lr": 0.0003},
    "learning_rate_changed": {"reason": "loss spike", "by": "damp", "lr": 0.0005, "before": 0.001},
    "throughput_ready": {
        "iters": 50,
        "seconds": 0.211,
        "iters_per_s": 236.9,
        "samples_per_s": 1895.7,
        "flops_per_s": 4.1e10,
        "memory_bytes": 412_090_368,
        "memory_peak_bytes": 430_440_448,
    },
    "norms_ready": {
        "gradient": 1.2071,
        "weight": 14.8203,
        "gradients": {"head.weight": 0.9513, "head.bias": 0.7431},
        "weights": {"head.weight": 14.7614, "head.bias": 1.3196},
    },
    "histograms_ready": {
        "gradients": {"head.bias": {"low": -0.31, "high": 0.42, "counts": [1, 5, 3, 1]}},
        "weights": {"head.bias": {"low": -0.72, "high": 0.68, "counts": [2, 2, 4, 2]}},
    },
    "image_saved": {"path": "runs/digits/images/val/iter_450.png", "tag": "val"},
    "trace_saved": {"path": "runs/digits/profile/rank0.312.pt.trace.json", "iters": 3},
    "run_failed": {"error": _TOO_LARGE, "traceback": _TRACEBACK.format(error=_TOO_LARGE)},
    "run_interrupted": {"reason": "KeyboardInterrupt"},
    "checkpoint_saved": {
        "size_bytes": 1_254_096,
        "duration_s": 0.0184,
        "purpose": "regular",
        "by": "checkpointer",
        "metrics": _METRICS,
    },
    "checkpoint_skipped": {"newer": "runs/digits/checkpoints/epoch_3"},
    "weights_loaded": {
        "path": "pretrained.safetensors",
        "missing": ["head.weight", "head.bias"],
        "unexpected": ["fc.weight", "fc.bias"],
        "mismatched": ["stem.weight: (64, 3, 7, 7) in the file, (64, 1, 7, 7) in the model"],
    },
    "checkpoint_failed": {"error": _NO_SPACE, "errno": 28},
    "checkpoint_rejected": {"reason": "state.pt: its checksum is not the manifest's"},
    "resume_inexact": {"reasons": ["the checkpoint holds no state of the data loader"]},
    "subscriber_failed": {
        "event_kind": "after_train_iter",
        "event_seq": 1280,
        "error": _NO_ANSWER,
        "traceback": _TRACEBACK.format(error=_NO_ANSWER).replace("train_step", "upload"),
        "disabled": False,
    },
    "subscriber_slow": {"seconds": 2.31, "blocking": False, "queued": 118},
    "events_dropped": {"count": 36, "first_seq": 1201, "last_seq": 1284},
}


def example(event_type: type[Event]) -> Event:
    """Return a realistic instance of the event, stamped, without its live fields.

    A field of an event of your own gets the first of its `Field(examples=…)`, or its default, or
    something of its type.

    Raises:
        ValueError: If that is no value for the field.
    """
    epoch, iteration, stage = _position(event_type)
    counters = {"epoch": epoch, "iter": iteration, "stage": stage}
    if stage is not None:
        counters |= {"max_epochs": 5, "max_iters": 1125}
    values = {
        name: _value(event_type, name, field)
        for name, field in event_type.model_fields.items()
        if name not in event_type.live_fields and name not in Event.model_fields
    }
    event = event_type.model_validate(values | counters).without_live()
    vars(event).update(_STAMP)
    if event.kind == "stop_requested":
        vars(event)["cause"] = 1285
    return event


def _position(event_type: type[Event]) -> tuple[int, int, str | None]:
    kind = event_type.kind
    if event_type not in EVENTS:
        return 1, 312, "train"
    if kind in _POSITIONS:
        return _POSITIONS[kind]
    words = kind.split("_")
    return next((_POSITIONS[word] for word in words if word in _POSITIONS), (1, 312, "train"))


def _value(event_type: type[Event], name: str, field: FieldInfo) -> Any:
    if event_type in EVENTS:
        for values in (_VALUES.get(event_type.kind, {}), _VALUES[""]):
            if name in values:
                return values[name]
    if field.examples:
        return field.examples[0]
    if not field.is_required():
        return field.get_default(call_default_factory=True, validated_data={})
    return _of_type(field.annotation, f"{event_type.__name__}.{name}")


def _of_type(annotation: Any, name: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    plain: dict[Any, Any] = {bool: True, int: 1, float: 0.5, str: "text", Any: None, None: None}
    if annotation in plain:
        return plain[annotation]
    if origin is Literal:
        return arguments[0]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    if (origin or annotation) in (list, dict, set, frozenset):
        return (origin or annotation)()
    if origin is not None and arguments:  # a union, or Annotated
        return _of_type(arguments[0], name)
    raise ValueError(f"{name} has no example: give the field one, Field(examples=[…])")
