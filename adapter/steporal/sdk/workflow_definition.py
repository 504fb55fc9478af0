"""The SDK's definition of a workflow class, which custom workflow runners are given. The SDK keeps it private."""

from __future__ import annotations

from temporalio.workflow import _Definition as WorkflowDefinition

__all__ = ["WorkflowDefinition"]
