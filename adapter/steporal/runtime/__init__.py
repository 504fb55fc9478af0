"""Inside one run, in a Temporal workflow."""
