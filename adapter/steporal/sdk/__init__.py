"""Workarounds for private symbols of Temporal's SDK and of asyncio; ``test_sdk_internals.py`` checks each symbol."""
