"""The stages that look at one document after the other, in their order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from geex_jax.data.document import Stage
from geex_jax.data.stages.contamination import Contamination
from geex_jax.data.stages.decode import Decode
from geex_jax.data.stages.filters import PaperFilters
from geex_jax.data.stages.language import LanguageOf
from geex_jax.data.stages.licences import Licences
from geex_jax.data.stages.secrets import Secrets
from geex_jax.errors import GeexError, did_you_mean

STAGES: dict[str, Any] = {
    stage.name: stage
    for stage in (Decode, LanguageOf, PaperFilters, Licences, Secrets, Contamination)
}
# What runs where a recipe says nothing; contamination has nothing to compare with by default.
DEFAULTS: dict[str, dict[str, Any]] = {name: {} for name in STAGES if name != "contamination"}


def build(settings: Mapping[str, Mapping[str, Any] | None] | None = None) -> list[Stage]:
    """Returns the stages of a run, in order.

    Args:
      settings: stage to its arguments ({"licences": {"allow": PERMISSIVE}}); None leaves the
        stage out. Stages that are not named run with their defaults; contamination, which has
        nothing to compare with by default, is left out.

    Raises:
      GeexError: no such stage or argument, or a value that the stage refuses.
    """
    settings = dict(settings or {})
    stages: list[Stage] = []
    for name in settings:
        if name not in STAGES:
            raise GeexError(f"unknown stage {name!r}", did_you_mean(name, STAGES))
    for name, stage in STAGES.items():
        arguments = settings.get(name, {})
        if arguments is None or (name == "contamination" and not arguments.get("benchmarks")):
            continue
        _check(name, stage, arguments)
        stages.append(stage(**arguments))
    return stages


def _check(name: str, stage: Any, arguments: Mapping[str, Any]) -> None:
    """Raises GeexError for an argument that the stage does not have."""
    known = [p for p in inspect.signature(stage).parameters if p != "limits"]
    if name == "filters":
        known += list(inspect.signature(type(stage().filters)).parameters)
    for argument in arguments:
        if argument not in known:
            raise GeexError(
                f"stage {name} has no setting {argument!r}", did_you_mean(argument, known)
            )


__all__ = [
    "DEFAULTS",
    "STAGES",
    "Contamination",
    "Decode",
    "LanguageOf",
    "Licences",
    "PaperFilters",
    "Secrets",
    "build",
]
