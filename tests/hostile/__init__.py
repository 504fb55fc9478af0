"""What strangers send: hostile inputs in great number, each against a limit that is promised.

``attacks`` says what an attack is and what it reports; each other module has the attacks on one part of the system.
``make test`` gives each a few seconds. ``make hostile MINUTES=60`` gives each its share of an hour, and prints the
figures.
"""
