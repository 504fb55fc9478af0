"""A process that runs an app: the plugin of its Temporal worker, its activities, and the system workflows."""
