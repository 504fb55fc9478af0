"""Progress, counts, search attributes and traces of runs."""
