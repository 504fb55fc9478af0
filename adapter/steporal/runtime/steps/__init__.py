"""Steps of a run, a file for each kind."""
