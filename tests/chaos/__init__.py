"""Kills workers and the server at random while runs of every kind go on, and looks at what became of each step.

``python -m tests.chaos --minutes 60 --seed 1`` runs it. To add a kind of run: a workflow in ``orders.py`` or
``mail.py``, and in ``plays.py`` what happens around one run of it and what must be true then.
"""
