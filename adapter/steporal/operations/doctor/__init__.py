"""Checks of an installation: the server, the namespace, the workers and the app."""
