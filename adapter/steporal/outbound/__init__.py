"""Outbound HTTP requests, for ``step.ext.fetch`` and for sinks of events."""
