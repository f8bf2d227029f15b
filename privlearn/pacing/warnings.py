"""The warning of this topic."""


class PacingWarning(UserWarning):
    """A setting that runs, but that theory says will disappoint."""
