"""``steporal runs``: finds runs, shows them, ends them, and runs them again."""
