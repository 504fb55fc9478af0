"""State of a run, built up from the facts of its history."""
