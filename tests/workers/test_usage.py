"""Wrong usages of the command line are answered with what was probably meant."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from steporal_workers.cli import cli

WRONG = [
    ("send order.placed '{\"a\": 1}'", "data is written as --data '{\"a\": 1}'"),
    ("send order.placed --json '{\"a\": 1}'", "data is written as --data '{\"a\": 1}'"),
    (
        "send order.placed id=1",
        "steporal send takes NAME only, but got the extra arguments id=1; data is written as --data JSON",
    ),
    ('send \'{"name": "a"}\'', "looks like data; write steporal send NAME --data"),
    ("send order.placed --payload '{}'", "steporal send has no option --payload; write --data"),
    ("send order.placed --input '{}'", "write --data"),
    ("send order.placed --data hello", "--data is not valid JSON"),
    ("send order.placed --data hello", "text is written with double quotes: '\"hello\"'"),
    ("send order.placed --data {a:1}", "put single quotes around it"),
    ("signal approval '\"yes\"'", "data is written as --data '\"yes\"'"),
    ("start process-order '{\"a\": 1}'", "data is written as --input '{\"a\": 1}'"),
    ("start process-order --data '{}'", "steporal start has no option --data; write --input"),
    ("start process-order --workflow-id x", "write --id"),
    ("runs rerun a/1 '{\"a\": 1}'", "data is written as --input"),
    ("runs show a/1 b/2", "steporal runs show takes ID only, but got the extra arguments b/2"),
    ("runs list a/1", "takes no arguments, but got the extra arguments a/1; `steporal runs show ID` shows a run"),
    ("runs a/1", "write `steporal runs show a/1`"),
    ("replay shop:client history.json", "name a history with --history FILE"),
    ("recover shop:client a/1", "choose runs with --workflow ID or --where QUERY"),
    ("checkpoint shop:client a/1", "choose runs with --workflow ID or --where QUERY"),
    ("demo x", "steporal demo takes no arguments, but got the extra arguments x"),
    ("--namespace x send a", "write --namespace after the command"),
    ("run shop.py", "steporal has no command 'run'; write `steporal worker MODULE:CLIENT`"),
    ("help", "write `steporal --help`"),
    ("wrker", "Did you mean 'worker'?"),
    ("send a --nope", "No such option"),
]


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_a_wrong_usage_says_what_was_probably_meant(line: str, says: str) -> None:
    ended = CliRunner().invoke(cli, shlex.split(line), prog_name="steporal")
    assert ended.exit_code == 2
    assert says in ended.output


@pytest.mark.parametrize("command", ["send", "runs show", "worker"])
def test_help_is_help_whatever_else_is_given(command: str) -> None:
    ended = CliRunner().invoke(cli, [*command.split(), "a", "b", "--help"])
    assert (ended.exit_code, "Usage:" in ended.output) == (0, True)
