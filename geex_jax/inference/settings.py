"""The engine's settings, and the few sizes that programs are compiled for."""

from __future__ import annotations

import dataclasses

from geex_jax.errors import GeexError
from geex_jax.inference.programs import sizes_up_to
from geex_jax.models import ModelConfig


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """How large the engine is, and how it trades one thing for another.

    Attributes:
      slots: rows of the cache: samples that are decoded together.
      context: tokens that a row holds; None: the model's context length.
      prefill_chunk: most tokens of prompts that are read between two decode steps.
      max_waiting: samples that may wait; more are refused as `Overloaded`.
      prefix_cache_bytes: memory of kept prompts, on all devices together; 0: none are kept.
      prefix_block: tokens of a kept block.
      speculate: tokens guessed before each step; 0: none. Guesses come from the row's own tokens,
        or from a draft model if the engine has one.
      speculate_ngram: how many last tokens must have stood before for a guess.
      speculate_rows: with more rows than this nothing is guessed from tokens: checking guesses is
        only cheap where few rows share a read of the weights.
      steps: most decode steps in one call, made where no prompt is to be read.
      pace: seconds that such a call should take at most: text comes that often.
      batches: numbers of rows that decode steps are compiled for, ascending; None: 1, 4, 16, ...
        and `slots`. Sums are formed in another order for another size; (slots,) makes tokens equal
        to the last bit whatever else runs, and single requests slower.
      windows: numbers of slots that a step may read; None: 256, 512, ... and `context`.
      compile_cache: folder that keeps compiled programs for later processes; None: jax's setting.

    Raises:
      GeexError: a setting out of range.
    """

    slots: int = 8
    context: int | None = None
    prefill_chunk: int = 256
    max_waiting: int = 256
    prefix_cache_bytes: int = 1 << 28
    prefix_block: int = 16
    speculate: int = 0
    speculate_ngram: int = 3
    speculate_rows: int = 4
    steps: int = 8
    pace: float = 0.05
    batches: tuple[int, ...] | None = None
    windows: tuple[int, ...] | None = None
    compile_cache: str | None = None

    def __post_init__(self):
        least = {
            "slots": 1, "prefill_chunk": 1, "max_waiting": 1, "prefix_cache_bytes": 0,
            "prefix_block": 1, "speculate": 0, "speculate_ngram": 1, "speculate_rows": 0,
            "steps": 1, "pace": 0,
        }  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise GeexError(f"engine.{name} = {getattr(self, name)}", f"give {low} or more")
        if self.context is not None and self.context < 2:
            raise GeexError(f"engine.context = {self.context}", "give 2 or more")

    def sizes(self, model: ModelConfig) -> Sizes:
        """What to compile for.

        Raises:
          GeexError: a context that the model does not have, or sizes that end too early.
        """
        context = self.context or model.context_length
        if context > model.context_length:
            raise GeexError(
                f"engine.context = {context}, and the model's is {model.context_length}",
                f"give {model.context_length} or less",
            )
        batches = self.batches or sizes_up_to(self.slots, 1, 4)
        windows = self.windows or sizes_up_to(context, 256, 2)
        for name, sizes, last in (("batches", batches, self.slots), ("windows", windows, context)):
            if sizes[-1] != last or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
                raise GeexError(f"engine.{name} = {sizes}", f"ascend to {last}")
        chunk, block = min(self.prefill_chunk, context), min(self.prefix_block, context)
        return Sizes(
            context, batches, windows, sizes_up_to(chunk, min(16, chunk), 4),
            sizes_up_to(context // block, min(4, context // block), 4), block,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Slots of a row, and ascending sizes that programs are compiled for.

    Attributes:
      context: slots of a row.
      batches: rows of decode steps. windows: slots that are read. chunks: tokens of prompts.
      blocks: blocks of `block` tokens that go into the prefix cache or out of it together.
    """

    context: int
    batches: tuple[int, ...]
    windows: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    block: int
