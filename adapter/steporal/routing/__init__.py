"""Routing of events and signals to the runs that they concern."""
