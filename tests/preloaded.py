"""What a fork server imports last: what each of its processes would do anew, and all of them alike."""

from __future__ import annotations

import gc

from temporalio.worker._worker import load_default_build_id

load_default_build_id()  # a digest of all code that is loaded, which takes a worker half a second

# No collection looks through what was imported, nor copies the memory that the processes share.
gc.collect()
gc.freeze()
