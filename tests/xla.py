"""How the tests' programs are compiled: they run for milliseconds, so quickly."""

QUICK = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # =1 in the environment
# XLA's newer code for fusions costs four times the compilation of the older one.
_FLAGS = "--xla_cpu_use_fusion_emitters=false"


def flags(devices: int = 1) -> str:
    """XLA_FLAGS of a process with so many simulated devices."""
    return f"{_FLAGS} --xla_force_host_platform_device_count={devices}"
