"""Where model-written programs run: namespaces, seccomp, limits, and nothing to see."""
