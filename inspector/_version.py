"""The version, in one place: the build reads it from here, and nothing has to be imported to know it."""

__version__ = "0.1.0"
