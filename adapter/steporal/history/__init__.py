"""Reading of histories: what a run has done so far, without its code."""
