"""State of runs, read from their histories without their code."""
