"""`python -m geex_jax` is the command `geex`."""

import sys

from geex_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
