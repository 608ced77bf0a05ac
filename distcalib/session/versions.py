"""What a score depends on beside its inputs."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType

from distcalib.plugins import plugin_versions
from distcalib.version import __version__


def versions(of_backend: Mapping[str, str] = MappingProxyType({}), plugins: Sequence[str] = ()) -> dict[str, str]:
    """Of the libraries that a row passes through, by name; with those `of_backend` and of the `plugins` of the run."""
    return {
        "distcalib": __version__,
        "openvino": version("openvino"),
        "ray": version("ray"),
        "numpy": version("numpy"),
        "opencv": version("opencv-python-headless"),
        "python": platform.python_version(),
        **of_backend,
        **plugin_versions(plugins),
    }
