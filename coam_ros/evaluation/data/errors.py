"""The error of a data set that cannot be used."""


class BenchmarkDataError(ValueError):
    """Data that cannot be used; the message names the file and the line."""
