"""Values as JSON for histories, and back: restored exactly as they were, or rejected with their path."""
