"""Apps as users write them, in modules that the sandbox loads again."""
