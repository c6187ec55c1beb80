"""Copies among documents: signatures, banded shuffles over files, clusters."""
