"""The one category of warning of this topic."""


class ReplicabilityWarning(UserWarning):
    """Two runs with the same seed may differ more often than was asked for."""
