"""Catalog of a namespace: the workflows that start on each event, registered by the workers of each app."""
