"""MMEngine's hooks on our bus: any object with some of the 22 methods of its `Hook`.

    from asyncrunner.mmengine import subscribe_hook

    subscribe_hook(runner, EMAHook(momentum=0.01))

What they are given for a runner is a `HookRunner`; what MMEngine's runner has and ours has not, such
as schedulers, is put there: `runner_for_hooks(runner).param_schedulers = [...]`. README.md beside this
file says what works. MMEngine itself is used only where it has been imported already.
"""

from .hook_runner import HookRunner
from .hooks import HookSubscription, runner_for_hooks, subscribe_hook

__all__ = ["HookRunner", "HookSubscription", "runner_for_hooks", "subscribe_hook"]
