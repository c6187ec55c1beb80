"""What a TPU slice will make of a config: fit, time and bounds, by its compiler alone."""
