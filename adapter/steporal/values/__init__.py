"""Values as JSON that a history can hold, and back: exactly what they were, or refused by name."""
