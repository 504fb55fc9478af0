"""Guards around the code of an app that runs in a workflow task."""
