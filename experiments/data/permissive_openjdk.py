"""The permissive recipe and OpenJDK's library, which is GPL-2.0 with the Classpath exception.

Command:
  geex prepare --recipe permissive_openjdk --output data --tokenizer vocabulary

OpenJDK's version is pinned at the first use: it moves with every security update. Whoever gives
on what is derived from its files must follow that licence.
"""

import pathlib
import runpy


def get_recipe():
    """Returns the recipe."""
    permissive = pathlib.Path(__file__).with_name("permissive.py")
    return runpy.run_path(str(permissive))["get_recipe"](openjdk=True)
