"""Python functions as Temporal sees them: portable references to step functions, and descriptions of their calls."""
