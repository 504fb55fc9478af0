"""`deploy/observability`, as Prometheus and Grafana read it; test_metrics.py asks whether the metrics exist."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from kustomizing import DEPLOY, ROOT
from promql import OBSERVABILITY, asked, dashboard, of_expression, panels, rules

from steporal.durations import parse_duration
from steporal.metrics import METRICS

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_every_expression_is_promql() -> None:
    found = asked()
    assert len(found) > 40
    assert all(it.selectors for it in found)
    with pytest.raises(ValueError):
        of_expression("", "rate(steporal_runs_started_total)")


def test_rules_have_what_prometheus_takes() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 10
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert parse_duration(rule.get("for", "1m"))
        in_text = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert in_text <= of_expression("", rule["expr"]).grouped, rule["alert"]


def test_operators_are_told_what_to_do_at_each_alert() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    for rule in rules():
        assert f"#### {rule['alert']}\n" in page
        assert rule["annotations"]["runbook"] == f"docs/operate.md#{rule['alert'].lower()}"


def test_a_counter_is_asked_for_its_rate_alone() -> None:
    counters = {metric.exposed for metric in METRICS if metric.kind == "counter"}
    for rule in rules():
        bare = re.sub(r"(rate|increase)\([^()]*\[", "", rule["expr"])
        assert not [name for name in counters if re.search(rf"\b{name}\b", bare)], rule["alert"]


def test_the_dashboard_has_what_grafana_needs() -> None:
    read = dashboard()
    assert read["schemaVersion"] >= 39
    assert read["uid"] and read["title"]
    first, *others = read["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    for variable in others:
        assert (variable["type"], variable["datasource"]) == ("query", DATASOURCE)
    ids = [panel["id"] for panel in read["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["type"] == "timeseries"
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == DATASOURCE
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])


def test_legends_name_labels_that_are_there() -> None:
    for panel in panels():
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)}}", target["legendFormat"]))
            assert shown <= of_expression("", target["expr"]).grouped, panel["title"]


def test_panels_do_not_overlap() -> None:
    boxes = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in combinations(boxes, 2):
        across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
        along = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
        assert not (across and along), (one, other)


def test_the_compose_file_mounts_what_is_there_and_scrapes_what_it_runs() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services: dict[str, Any] = compose["services"]
    read = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())
    [job] = read["scrape_configs"]
    port = services["worker"]["environment"]["STEPORAL_METRICS_PORT"]
    assert job["static_configs"] == [{"targets": [f"worker:{port}", f"gateway:{port}"]}]
    assert services["gateway"]["environment"]["STEPORAL_METRICS_PORT"] == port
    assert [(OBSERVABILITY / name).exists() for name in read["rule_files"]] == [True]
    for name in ("prometheus", "grafana"):
        for mount in services[name]["volumes"]:
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith("./") else source in compose["volumes"]
    provided = yaml.safe_load((OBSERVABILITY / "grafana/dashboards.yaml").read_text())["providers"]
    folder = provided[0]["options"]["path"]
    assert any(Path(mount.split(":")[1]).parent == Path(folder) for mount in services["grafana"]["volumes"])
    [source] = yaml.safe_load((OBSERVABILITY / "grafana/datasources.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
