"""Processes of Steporal: workers, the development environment, and the command ``steporal``."""
