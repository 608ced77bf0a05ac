"""Ray, loaded when it is first needed: importing distcalib neither loads it nor changes the environment.

Ray reads some of its environment when it is imported and hands all of it to its processes, so the defaults below are
set before the import; what the user has set wins.
"""

import os
from functools import cache
from importlib import import_module
from typing import Any

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a calibration on a closed network should not try to report itself
    "RAY_enable_metrics_collection": "0",  # saves 1-2 s of the start; nothing here reads them
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would upload the working directory for each actor
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # older Rays warn (FutureWarning) about GPUs that we never use
    # Ray prints these to stdout, in the middle of a --json; dead actors are logged in fleet.py instead.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|worker processes have been started on node|"
    "The node with node id",
    "RAY_worker_niceness": "0",  # Ray adds it to the driver's own; by default 15, and actors starve beside other work
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # results of an abandoned call are nobody's business
}


@cache
def load_ray() -> Any:
    """The module `ray`, with what is used of its other modules."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    ray = import_module("ray")
    for name in ("ray.exceptions", "ray.util.scheduling_strategies", "ray._private.ray_constants"):
        import_module(name)
    return ray
