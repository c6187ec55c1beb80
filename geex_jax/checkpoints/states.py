"""Training states: asynchronous Orbax checkpoints, kept by age and by score."""

from __future__ import annotations

import pathlib
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from geex_jax.checkpoints.store import restore, saved_steps
from geex_jax.errors import GeexError


class StateStore:
    """`checkpoints/` of a workdir. A step's folder appears only when it is whole.

    Each step holds `params`, `rest` (all else that training changes) and `loader` (JSON).
    """

    def __init__(self, folder: pathlib.Path, keep_last: int, keep_best: int):
        """Keeps the newest `keep_last` steps and the `keep_best` ones with the lowest score."""
        self.folder = folder.absolute()
        newest = policies.LatestN(keep_last)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=True,
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        policy = policies.AnyPreservationPolicy([newest, best]) if keep_best else newest
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy, cleanup_tmp_directories=True, create=True
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(
        self, step: int, params: Any, rest: Any, loader: Any, score: float | None = None
    ) -> None:
        """Starts saving; returns when the arrays have been copied, before they are on disk."""
        self.manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                rest=ocp.args.StandardSave(rest),
                loader=ocp.args.JsonSave(loader),
            ),
            metrics=None if score is None else {"score": score},
            force=True,
        )

    def wait(self) -> None:
        """Blocks until all saves are on disk."""
        self.manager.wait_until_finished()

    def latest(self) -> int | None:
        """The newest whole step, or None."""
        steps = saved_steps(self.folder)
        return steps[-1] if steps else None

    def load(self, step: int, params: Any, rest: Any) -> tuple[Any, Any, Any]:
        """Restores a step into the shapes, dtypes and shardings given.

        Raises:
          GeexError: the step is damaged; names it and the step before.
        """
        folder = self.folder / str(step)
        earlier = [s for s in saved_steps(self.folder) if s < step]
        remedy = f"remove {folder} to go on from " + (
            f"step {earlier[-1]}" if earlier else "the start"
        )
        try:
            loader = self.manager.restore(
                step, args=ocp.args.Composite(loader=ocp.args.JsonRestore())
            )["loader"]
            return restore(folder / "params", params), restore(folder / "rest", rest), loader
        except GeexError as error:
            raise GeexError(f"checkpoint {error.what}", remedy) from error
        except Exception as error:
            line = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise GeexError(f"checkpoint {folder} is cut short ({line})", remedy) from error

    def close(self) -> None:
        """Waits for saves and lets go of the folder."""
        self.manager.wait_until_finished()
        self.manager.close()
