"""Training states: asynchronous Orbax checkpoints, kept by age and by score."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from geex_jax.checkpoints import whole
from geex_jax.checkpoints.store import restore, saved_steps
from geex_jax.errors import GeexError
from geex_jax.parallel import startup


class StateStore:
    """`checkpoints/` of a workdir. A step's folder appears only when it is whole.

    Each step holds `params`, `rest` (all else that training changes), `loader` (JSON) and the
    sizes of its files. Every process writes and reads the parts of arrays that its devices hold.

    Attributes:
      passed_over: what was found damaged when the store was opened, a line each.
      saved: the last step that this store was asked to save, or found; None at first.
    """

    def __init__(self, folder: pathlib.Path, keep_last: int, keep_best: int):
        """Keeps the newest `keep_last` steps and the `keep_best` ones with the lowest score.

        The newest step that is whole is `latest()`. Damaged ones after it are moved to
        `damaged/` beside the folder, so that their numbers are free.

        Raises:
          GeexError: there are steps, and not one of them is whole.
        """
        self.folder = folder.absolute()
        self.passed_over: list[str] = []
        newest = policies.LatestN(keep_last)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=True,
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        found = startup.agreed(self._examine)
        policy = policies.AnyPreservationPolicy([newest, best]) if keep_best else newest
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            cleanup_tmp_directories=True,
            create=True,
            temporary_path_class=whole.ListedPath,
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)
        step = startup.from_first(-1 if found is None else found)
        self.saved = None if step < 0 else step

    def _examine(self) -> int | None:
        """Finds the newest whole step and moves the damaged ones after it; the first process."""
        if jax.process_index() != 0:
            return None
        steps, damaged = saved_steps(self.folder), []
        for step in reversed(steps):
            wrong = whole.damage(self.folder / str(step))
            if wrong is None:
                break
            damaged.append((step, wrong))
        else:
            if damaged:
                raise GeexError(
                    f"no checkpoint in {self.folder} is whole (step {damaged[0][0]}: "
                    f"{damaged[0][1]})",
                    "bring back its files, or remove the folder to start afresh",
                )
            whole.expect_lists(self.folder)
            return None
        for number, wrong in damaged:
            place = self._move_aside(number)
            self.passed_over.append(
                f"checkpoint of step {number} is damaged ({wrong}): moved to {place}; going on "
                f"from step {step}"
            )
        return step

    def _move_aside(self, step: int) -> pathlib.Path:
        aside = self.folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        number = len(list(aside.iterdir()))
        place = aside / f"{step}-{number}"
        os.rename(self.folder / str(step), place)
        return place

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
        self.saved = step

    def wait(self) -> None:
        """Blocks until all saves are on disk."""
        self.manager.wait_until_finished()

    def latest(self) -> int | None:
        """The newest whole step, or None; the same on all processes."""
        return self.saved

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
