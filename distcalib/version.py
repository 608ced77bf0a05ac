"""The version, in one place: pyproject.toml reads it from here, reports and journals record it."""

__version__ = "0.1.0"
