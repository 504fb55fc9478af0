"""The real runtime in memory, on virtual time: random programs, interrupted at random moments.

``service`` stands in for Temporal's server, ``core`` for the SDK's core, ``world`` for everything else outside a run;
``programs`` makes random handlers, ``app`` runs them, ``search`` compares a run with the same run interrupted.
"""
