"""Every name that stands in a history, or that one process gives another: none is spelled anywhere else.

Runs of a released version are live on clusters that nobody but their owners can see. So a name here never changes its
value or its meaning, and one that is no longer used stays taken. ``docs/wire-names.md`` is the table of all of them,
and says since which version each exists; a test compares the two.
"""

from __future__ import annotations

from typing import Final

# --- workflow types ------------------------------------------------------------------------------------------------
# Also the beginning of their workflow ids: ``steporal.topic/order.paid``.

ARBITER: Final = "steporal.app"
"""Decides which of an app's lists is in force."""
SHARD: Final = "steporal.catalog"
"""Holds what a part of the catalog lists."""
DIRECTORY: Final = "steporal.topics"
"""Holds which topics runs wait in."""
TOPIC: Final = "steporal.topic"
"""Holds the runs that wait for events of a name, and delivers these."""
LATE: Final = "steporal.late_events"
"""Publishes events that a topic could not take yet."""
MAILBOX: Final = "steporal.mailbox"
"""Holds the run that waits for a signal."""

# --- task queues and ids -------------------------------------------------------------------------------------------

SYSTEM_TASK_QUEUE: Final = "steporal"
"""Of topics, their directory and mailboxes."""
SHARDS_TASK_QUEUE: Final = "steporal.catalog"
"""Of the catalog's shards. An app's ``steporal.app/{app}`` has a task queue of the same name."""

WORKER_TASK_QUEUE: Final = "steporal.worker/"
"""Before a random id, of one worker process: for attempts that join a step that it runs."""
SCHEDULE_ID: Final = "steporal/"
"""Before an app's id, its workflow and the cron: the id of a schedule."""
RUN_SEED: Final = "steporal.random "
"""Before a run id, hashed: the seed of a run's random numbers."""

# --- activities ----------------------------------------------------------------------------------------------------

RUN_STEP: Final = "steporal.run_step"
"""Runs a step's function."""
JOIN_STEP: Final = "steporal.join_step"
"""Waits for a step's function that a worker runs already; on that worker's own task queue."""
SEND_EVENT: Final = "steporal.send_event"
"""Sends events, of a step or of a run that has ended."""
FIND_WORKFLOW: Final = "steporal.find_workflow"
"""Looks up a workflow of another app, to invoke it."""
FIND_END: Final = "steporal.find_end"
"""Reads how a run has ended that was invoked."""
HAS_ATTRIBUTES: Final = "steporal.has_attributes"
"""Asks whether the namespace has Steporal's search attributes."""
SUBSCRIBE_RUN: Final = "steporal.subscribe"
"""Has a run wait for events; a local activity."""
UNSUBSCRIBE_RUN: Final = "steporal.unsubscribe"
"""Has a run wait no longer; a local activity."""
OPEN_MAILBOX: Final = "steporal.open_mailbox"
"""Has a run wait for a signal; a local activity."""
CLOSE_MAILBOX: Final = "steporal.close_mailbox"
"""Has a run wait for a signal no longer; a local activity."""
RELEASE_MAILBOXES: Final = "steporal.release_mailboxes"
"""Has a run that ended wait for no signal; a local activity."""
FIND_MAILBOX: Final = "steporal.find_mailbox"
"""Finds the mailbox that a step's signal goes to."""
SEND_SIGNAL: Final = "steporal.send_signal"
"""Sends a step's signal."""
CHECK_SIGNAL: Final = "steporal.check_signal"
"""Checks a signal's data against the schema of who waits; on the task queue of the app that does."""
FETCH: Final = "steporal.fetch"
"""Makes an HTTP request."""
POST_EVENT: Final = "steporal.post_event"
"""Posts an event to a sink."""
PLACE_APP: Final = "steporal.place_app"
"""Brings the catalog and an app's schedules up to date with its list."""
DELIVER_EVENTS: Final = "steporal.deliver_events"
"""Sends events to the runs that wait for them."""
LIST_TOPICS: Final = "steporal.list_topics"
"""Confirms topics in the directory."""
PUBLISH_LATE: Final = "steporal.publish_late"
"""Sends events to a topic that could not take them before."""

# --- signals -------------------------------------------------------------------------------------------------------

START_SIGNAL: Final = "steporal.event"
"""To a run: the event that started it was sent again."""
DELIVER: Final = "steporal.deliver"
"""To a run, an event: ``{"key", "run_id", "event"}``."""
SIGNALLED: Final = "steporal.signalled"
"""To a run, a signal that it waits for: ``{"key", "run_id", "signal", "data"}``."""
REPORT: Final = "steporal.report"
"""To an invoked run: ``{"workflow_id", "run_id"}`` of the run that wants to know its end."""
ENDED: Final = "steporal.ended"
"""To a run, the end of one that it invoked: ``{"run_id", "child", "outcome"}``."""
CHECKPOINT: Final = "steporal.checkpoint"
"""To a run: park as soon as possible, for a change of code."""
RECOVER: Final = "steporal.recover"
"""To a run that was reset: its state, from the history that no longer fits the code."""
SUBSCRIBE: Final = "steporal.subscribe"
"""To a topic: a list of subscriptions."""
UNSUBSCRIBE: Final = "steporal.unsubscribe"
"""To a topic: a list of the ids of subscriptions."""
PUBLISH: Final = "steporal.publish"
"""To a topic: a list of events."""
RELEASE: Final = "steporal.release"
"""To a mailbox: the run that waits has ended."""

# --- updates and queries -------------------------------------------------------------------------------------------

REGISTER: Final = "steporal.register"
"""To an app's workflow: a list, and why it should be in force."""
PLACE: Final = "steporal.place"
"""To a shard of the catalog: an app's field, or its removal."""
LIST_TOPIC: Final = "steporal.list"
"""To a shard of the directory: topics that runs wait in."""
SEND: Final = "steporal.send"
"""To a mailbox: a signal."""
TAKE: Final = "steporal.take"
"""To a mailbox: another run waits instead."""
CLOSE: Final = "steporal.close"
"""To a mailbox: the run waits no longer; the answer is whether it has received the signal."""
SUBSCRIPTIONS: Final = "steporal.subscriptions"
"""Query of a topic: how many runs wait, and some of them."""
MATCHED: Final = "steporal.matched"
"""Query of a topic: which runs an event was for."""

# --- markers of workflow.patched -----------------------------------------------------------------------------------

STORAGE_IS_USED: Final = "steporal.storage"
"""The worker had external storage when the run first needed it."""
SECRETS_ARE_SENT: Final = "steporal.secrets"
"""The worker encrypted payloads when the run first sent a secret."""
LISTENS_BEFORE_IT_ASKS: Final = "steporal.listens-before-it-asks"
"""A run that was reset waits for the report of an invoked run while it asks for its end."""
WAITS_FOR_A_FULL_RUN: Final = "steporal.waits-for-a-full-run"
"""A mailbox waits until a run takes signals again."""
IS_TOO_LARGE: Final = "steporal.too-large"
"""A compressed value was too large, with the number of the decision: `steporal.too-large/1`."""

# --- keys of Temporal's memo ---------------------------------------------------------------------------------------

RERUN_OF_KEY: Final = "steporal.rerun_of"
"""Of a run: of which run it is the rerun."""
LIST_KEY: Final = "list"
"""Of an app's workflow: the list in force."""
STANDING_KEY: Final = "standing"
"""Of an app's workflow: what is known of that list."""
SCHEDULES_KEY: Final = "schedules"
"""Of an app's workflow: the schedules that may exist."""
APP_KEY: Final = "app:"
"""Of a shard of the catalog, before an app's id: the app's field."""
TOPIC_KEY: Final = "topic:"
"""Of a shard of the directory, before a topic: the topic's entry."""
UNLISTED_KEY: Final = "unlisted"
"""Of a shard of the directory: it does not list every topic."""
WAIT_KEY: Final = "wait"
"""Of a mailbox: who waits. Nobody does once a delivery has begun."""
VERSION_KEY: Final = "version"
"""Of a system workflow: the form of its memo."""

# --- metadata of payloads and headers ------------------------------------------------------------------------------

CALL_METADATA: Final = "steporal.call"
"""Of a step's result: the description of the call that made it."""
EXACT_METADATA: Final = "steporal-exact"
"""Of a run's result, which is plain JSON: the exact value."""
GENERATION_METADATA: Final = "steporal-generation"
"""Of an app's field in a shard: the generation of its list, readable without a key."""
KEY_ID_METADATA: Final = "encryption-key-id"
"""Of an encrypted payload: the id of its key."""
STEP_HEADER: Final = "steporal-step"
"""Of an activity: the span of its step."""
BEGUN_HEADER: Final = "steporal-begun"
"""Of an activity: when its step began."""

# --- types of errors -----------------------------------------------------------------------------------------------

CATALOG_FULL: Final = "CatalogFullError"
"""An app does not fit into the catalog."""
STEP_NOT_HERE: Final = "StepNotHereError"
"""A worker does not run a step that an attempt wants to join."""
WAIT_REFUSED: Final = "steporal/wait.refused"
"""Name of the event by which a topic refuses a subscription; its data has the ``message``. Nobody else can send it."""

# --- summaries of timers -------------------------------------------------------------------------------------------
# A step's timer has its key. What reads histories, for ``recover`` and ``runs show``, tells the others by these.

PARKS: Final = "until the run parks"
GOES_ON: Final = "until the run goes on"
COMES_BACK: Final = "until the body has come to where it was"
BACKOFF_AFTER: Final = "backoff after attempt "
UNTIL_TS: Final = "until the event's ts, "
UNTIL_CODE: Final = "until a worker has the code of step "
UNTIL_NEXT_ATTEMPT: Final = "until the next attempt of step "
ASYNCIO_TIMER: Final = "asyncio timer "
BEGINS_ANEW: Final = ", with a clock of its own"
"""At the end of a backoff's summary: from the last entry of the journal on, the next attempt reads the time anew."""
INVOKED_BY: Final = ": invoked by "
"""In the summary of an invoked run, before the run and the step that invoked it."""
