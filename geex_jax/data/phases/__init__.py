"""The phases of a run: read, dedup (scatter, gather), pack (place, write). See `pipeline`."""
