"""What an experiment file says about slices: `SLICES`, name -> topology and overrides.

    SLICES = {
        "v5e-256": {"topology": "v5e:16x16", "batch_size": 3072, "accumulate": 12},
    }

Keys with dots are keys of the config (`mesh.fsdp`); `topology`, `slices` and `options` (compiler
options, name -> value) are the plan's own. They are read, not executed: the file is parsed.
"""

from __future__ import annotations

import ast
import pathlib
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean

OWN = ("topology", "slices", "options")


def slices_of(path: files.Path) -> dict[str, dict[str, Any]]:
    """SLICES of an experiment file; empty if it has none.

    Raises:
      GeexError: no such file, or SLICES is not a plain literal.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise GeexError(f"no config file {path}")
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "SLICES" for t in targets):
            try:
                return ast.literal_eval(node.value)  # pyright: ignore[reportAttributeAccessIssue]
            except ValueError:
                raise GeexError(
                    f"SLICES of {path} is not a plain literal", "write names, numbers and strings"
                ) from None
    return {}


def find_slice(path: files.Path, name: str) -> dict[str, Any]:
    """One entry of SLICES.

    Raises:
      GeexError: there is none of that name.
    """
    known = slices_of(path)
    if not known:
        raise GeexError(f"{path} has no SLICES", "give --topology and --config.KEY=VALUE instead")
    if name not in known:
        raise GeexError(f"{path} knows no slice {name!r}", did_you_mean(name, known))
    return known[name]


def slice_overrides(path: files.Path, name: str) -> list[str]:
    """The entry's keys of the config, as `--config.KEY=VALUE` words."""
    entry = find_slice(path, name)
    return [f"--config.{key}={value}" for key, value in entry.items() if key not in OWN]
