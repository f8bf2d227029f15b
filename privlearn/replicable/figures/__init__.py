"""The figures of replicable clustering: two runs, rates, costs, laws, real tables."""

from privlearn.replicable.figures import costs, laws, planes, rates

__all__ = ["costs", "laws", "planes", "rates"]
