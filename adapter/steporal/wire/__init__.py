"""Contract of Steporal with Temporal's histories, and between processes of different versions."""
