"""Expressions of triggers and waits: a subset of CEL, evaluated within a budget."""
