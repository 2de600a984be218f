"""Was it Docker? Flagged audit events, confirmed or refuted from the live host."""

__version__ = "0.1.0"
