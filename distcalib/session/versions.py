"""What a score depends on beside its inputs."""

import platform
from importlib.metadata import version

from distcalib.version import __version__


def versions() -> dict[str, str]:
    """Of the libraries that a row passes through, by name."""
    return {
        "distcalib": __version__,
        "openvino": version("openvino"),
        "ray": version("ray"),
        "numpy": version("numpy"),
        "opencv": version("opencv-python-headless"),
        "python": platform.python_version(),
    }
