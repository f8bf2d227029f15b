"""The figures of learning from aggregate responses: synthetic, on real tables, and private."""

# The order of import is the order of the report.
from privlearn.aggregate.figures import synthetic  # noqa: I001
from privlearn.aggregate.figures import real
from privlearn.aggregate.figures import private

__all__ = ["private", "real", "synthetic"]
