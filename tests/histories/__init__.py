"""Histories of every kind of run and of every system workflow, in a folder for each version that has recorded them.

``make histories`` records those of this version anew, ``test_histories.py`` replays all. To add a kind: a workflow in
``app.py``, and in ``scenes.py`` what happens around a run of it. What is in ``app.py`` stays as it is, as the histories
of all versions are replayed with it.
"""
