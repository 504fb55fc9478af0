"""HTTP requests to the world outside: for ``step.ext.fetch``, and for sinks of events."""
