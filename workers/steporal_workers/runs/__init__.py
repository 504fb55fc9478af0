"""``steporal runs``: find runs, look at them, end them, and run them again."""
