"""The catalog of a namespace: which workflows start on which event, registered by the workers of each app."""
