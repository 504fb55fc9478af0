"""Activities that serve the steps of an app: they run outside workflows, on any worker of the app."""
