"""Topics: Temporal workflows that hold the waits of runs for an event, and deliver it."""
