"""Profiles of training steps, for XProf and Perfetto."""

import jax
from etils import epath

from genmask_jax.training.state import TrainState
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.paths import is_object


class Profiler:
    """Traces some steps to WORKDIR/profile, on the first host."""

    def __init__(self, workdir: epath.Path, steps: range, first_step: int):
        """`steps`: steps to trace; those before `first_step`, where the run continues, are left out."""
        self.directory = workdir / "profile"
        self.steps = range(max(steps.start, first_step), steps.stop if is_first() else 0)

    def before(self, step: int) -> None:
        """Starts the trace if this is the first step to trace."""
        if self.steps and step == self.steps.start:
            in_bucket = is_object(self.directory)
            jax.profiler.start_trace(self.directory, create_perfetto_trace=not in_bucket)

    def after(self, step: int, state: TrainState) -> None:
        """Ends the trace once `step` steps are done, if none is left to trace."""
        if self.steps and step == self.steps.stop:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
