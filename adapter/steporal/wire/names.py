"""Names that appear in histories, or that processes send each other; no other module spells them.

Runs of released versions are live on clusters that only their owners can see. So a name here never changes its value or
its meaning, and a name that is no longer used stays reserved. ``docs/wire-names.md`` lists all names and the version
that introduced each; a test compares the two.
"""

from __future__ import annotations

from typing import Final

# --- workflow types ------------------------------------------------------------------------------------------------
# Also the beginning of their workflow ids: ``steporal.topic/order.paid``.

ARBITER: Final = "steporal.app"
"""Decides which of an app's lists is in force."""
SHARD: Final = "steporal.catalog"
"""Holds the entries of one part of the catalog."""
DIRECTORY: Final = "steporal.topics"
"""Holds the topics that runs wait in."""
TOPIC: Final = "steporal.topic"
"""Holds the runs that wait for events of one name, and delivers the events to them."""
LATE: Final = "steporal.late_events"
"""Publishes events that a topic could not accept yet."""
MAILBOX: Final = "steporal.mailbox"
"""Holds the run that waits for a signal."""

# --- task queues and ids -------------------------------------------------------------------------------------------

SYSTEM_TASK_QUEUE: Final = "steporal"
"""Task queue of topics, their directory and mailboxes."""
SHARDS_TASK_QUEUE: Final = "steporal.catalog"
"""Task queue of the catalog's shards. The task queue of an app's ``steporal.app/{app}`` has the same name as its id."""

WORKER_TASK_QUEUE: Final = "steporal.worker/"
"""Prefix of one worker process's task queue, before a random id: for attempts that join a step that it runs."""
SCHEDULE_ID: Final = "steporal/"
"""Prefix of the id of a schedule, before the app's id, its workflow and the cron expression."""
RUN_SEED: Final = "steporal.random "
"""Prefix of a run id; the hash of both is the seed of a run's random numbers."""

# --- activities ----------------------------------------------------------------------------------------------------

RUN_STEP: Final = "steporal.run_step"
"""Runs a step's function."""
JOIN_STEP: Final = "steporal.join_step"
"""Waits for a step's function that a worker already runs; on that worker's own task queue."""
SEND_EVENT: Final = "steporal.send_event"
"""Sends events of a step, or of a run that has ended."""
FIND_WORKFLOW: Final = "steporal.find_workflow"
"""Looks up a workflow of another app, to invoke it."""
FIND_END: Final = "steporal.find_end"
"""Reads the end of an invoked run."""
HAS_ATTRIBUTES: Final = "steporal.has_attributes"
"""Returns whether the namespace has Steporal's search attributes."""
SUBSCRIBE_RUN: Final = "steporal.subscribe"
"""Subscribes a run to events; a local activity."""
UNSUBSCRIBE_RUN: Final = "steporal.unsubscribe"
"""Ends a run's subscription; a local activity."""
OPEN_MAILBOX: Final = "steporal.open_mailbox"
"""Opens a mailbox for a run that waits for a signal; a local activity."""
CLOSE_MAILBOX: Final = "steporal.close_mailbox"
"""Closes the mailbox of a run that no longer waits for a signal; a local activity."""
RELEASE_MAILBOXES: Final = "steporal.release_mailboxes"
"""Releases all mailboxes of a run that has ended; a local activity."""
FIND_MAILBOX: Final = "steporal.find_mailbox"
"""Finds the mailbox for a step's signal."""
SEND_SIGNAL: Final = "steporal.send_signal"
"""Sends a step's signal."""
CHECK_SIGNAL: Final = "steporal.check_signal"
"""Checks a signal's data against the schema of the waiting run, on the task queue of that run's app."""
FETCH: Final = "steporal.fetch"
"""Makes an HTTP request."""
POST_EVENT: Final = "steporal.post_event"
"""Posts an event to a sink."""
PLACE_APP: Final = "steporal.place_app"
"""Updates the catalog and an app's schedules to match the app's list."""
DELIVER_EVENTS: Final = "steporal.deliver_events"
"""Sends events to the runs that wait for them."""
LIST_TOPICS: Final = "steporal.list_topics"
"""Confirms topics in the directory."""
PUBLISH_LATE: Final = "steporal.publish_late"
"""Sends events to a topic that could not accept them before."""

# --- signals -------------------------------------------------------------------------------------------------------

START_SIGNAL: Final = "steporal.event"
"""To a run: the event that started it was sent again."""
DELIVER: Final = "steporal.deliver"
"""To a run: an event, ``{"key", "run_id", "event"}``."""
SIGNALLED: Final = "steporal.signalled"
"""To a run: a signal that it waits for, ``{"key", "run_id", "signal", "data"}``."""
REPORT: Final = "steporal.report"
"""To an invoked run: ``{"workflow_id", "run_id"}`` of the run that requests a report of its end."""
ENDED: Final = "steporal.ended"
"""To a run: the end of a run that it invoked, ``{"run_id", "child", "outcome"}``."""
CHECKPOINT: Final = "steporal.checkpoint"
"""To a run: park as soon as possible, for a change of code."""
RECOVER: Final = "steporal.recover"
"""To a run that was reset: its state, from the history that no longer fits the code."""
SUBSCRIBE: Final = "steporal.subscribe"
"""To a topic: a list of subscriptions."""
UNSUBSCRIBE: Final = "steporal.unsubscribe"
"""To a topic: a list of ids of subscriptions."""
PUBLISH: Final = "steporal.publish"
"""To a topic: a list of events."""
RELEASE: Final = "steporal.release"
"""To a mailbox: the waiting run has ended."""

# --- updates and queries -------------------------------------------------------------------------------------------

REGISTER: Final = "steporal.register"
"""To an app's workflow: a list, and the reason why it should be in force."""
PLACE: Final = "steporal.place"
"""To a shard of the catalog: an app's field, or the removal of it."""
LIST_TOPIC: Final = "steporal.list"
"""To a shard of the directory: topics that runs wait in."""
SEND: Final = "steporal.send"
"""To a mailbox: a signal."""
TAKE: Final = "steporal.take"
"""To a mailbox: another run takes over the wait."""
CLOSE: Final = "steporal.close"
"""To a mailbox: the run no longer waits; the response says whether it has received the signal."""
SUBSCRIPTIONS: Final = "steporal.subscriptions"
"""Query of a topic: the number of waiting runs, and some of them."""
MATCHED: Final = "steporal.matched"
"""Query of a topic: the runs that an event was for."""

# --- markers of workflow.patched -----------------------------------------------------------------------------------

STORAGE_IS_USED: Final = "steporal.storage"
"""The worker had external storage when the run first needed it."""
SECRETS_ARE_SENT: Final = "steporal.secrets"
"""The worker encrypted payloads when the run first sent a secret."""
IS_TOO_LARGE: Final = "steporal.too-large"
"""A compressed value was too large, with the number of the decision: `steporal.too-large/1`."""

# --- keys of Temporal's memo ---------------------------------------------------------------------------------------

RERUN_OF_KEY: Final = "steporal.rerun_of"
"""Of a run: the run that it is a rerun of."""
LIST_KEY: Final = "list"
"""Of an app's workflow: the list in force."""
STANDING_KEY: Final = "standing"
"""Of an app's workflow: the state of that list."""
SCHEDULES_KEY: Final = "schedules"
"""Of an app's workflow: the schedules that may exist."""
APP_KEY: Final = "app:"
"""Of a shard of the catalog: prefix of an app's id, for the app's field."""
TOPIC_KEY: Final = "topic:"
"""Of a shard of the directory: prefix of a topic, for the topic's entry."""
UNLISTED_KEY: Final = "unlisted"
"""Of a shard of the directory: it does not list every topic."""
WAIT_KEY: Final = "wait"
"""Of a mailbox: the waiting run. Cleared when a delivery starts."""
VERSION_KEY: Final = "version"
"""Of a system workflow: the format of its memo."""

# --- metadata of payloads and headers ------------------------------------------------------------------------------

CALL_METADATA: Final = "steporal.call"
"""Of a step's result: the description of the call that returned it."""
EXACT_METADATA: Final = "steporal-exact"
"""Of a run's result, which is plain JSON: the exact value."""
GENERATION_METADATA: Final = "steporal-generation"
"""Of an app's field in a shard: the generation of its list, readable without a key."""
KEY_ID_METADATA: Final = "encryption-key-id"
"""Of an encrypted payload: the id of its key."""
STEP_HEADER: Final = "steporal-step"
"""Of an activity: the span of its step."""
BEGUN_HEADER: Final = "steporal-begun"
"""Of an activity: the time when its step began."""

# --- types of errors -----------------------------------------------------------------------------------------------

CATALOG_FULL: Final = "CatalogFullError"
"""An app does not fit into the catalog."""
STEP_NOT_BEGUN: Final = "StepNotBegunError"
"""A worker has received a step and did not begin it, because the server has not recorded that it would."""
STEP_NOT_HERE: Final = "StepNotHereError"
"""A worker does not run the step that an attempt wants to join."""
WAIT_REFUSED: Final = "steporal/wait.refused"
"""Name of the event by which a topic rejects a subscription; its data has the ``message``. Only topics can send it."""

# --- summaries of timers -------------------------------------------------------------------------------------------
# A step's timer has its key. Readers of histories (``recover``, ``runs show``) recognize the others by these.

PARKS: Final = "until the run parks"
GOES_ON: Final = "until the run goes on"
COMES_BACK: Final = "until the body has come to where it was"
BACKOFF_AFTER: Final = "backoff after attempt "
UNTIL_TS: Final = "until the event's ts, "
UNTIL_CODE: Final = "until a worker has the code of step "
UNTIL_NEXT_ATTEMPT: Final = "until the next attempt of step "
ASYNCIO_TIMER: Final = "asyncio timer "
BEGINS_ANEW: Final = ", with a clock of its own"
"""End of a backoff's summary: the next attempt reads the time anew after the last entry of the journal."""
INVOKED_BY: Final = ": invoked by "
"""In the summary of an invoked run, before the run and the step that invoked it."""
