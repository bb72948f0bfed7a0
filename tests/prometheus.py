#!/usr/bin/env python3
"""pail's metrics with a real Prometheus: what it scrapes, and what the alerts and the dashboard of deploy/ make of it.

    tests/prometheus.py target/release/pail [--require]

With --require it fails where Prometheus is missing (Debian's package prometheus).
"""

import json
import re
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from world import Running, Server, Wrong, end_as_told, free_ports, has, pail_to_test, until

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "pail.json"
# Metrics there are only with TLS, which this server has not.
ONLY_WITH_TLS = {"pail_tls_certificate_expires_seconds"}
NAME = re.compile(r"\b(?:pail|grpc|process)_[a-z_]+\b")
# Labels, and the parts of names, that look like metrics.
NO_METRICS = {"grpc_method", "grpc_service", "grpc_type", "grpc_code"}


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode(), response.headers


class Prometheus(Running):
    """One that scrapes pail twice a second, with the alerts."""

    def __init__(self, folder, target):
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "scrape_configs": [{"job_name": "pail", "static_configs": [{"targets": [target]}]}],
            "rule_files": [str(ALERTS)],
        }
        path = Path(folder, "prometheus.yaml")
        path.write_text(json.dumps(config))  # which YAML is, too
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        address = self.url.removeprefix("http://")
        super().__init__(
            ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def ask(self, path, **query):
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}")[0])
        if answer["status"] != "success":
            raise Wrong(f"{path} {query}: {answer}")
        return answer["data"]

    def scrapes(self):
        try:
            (target,) = self.ask("targets")["activeTargets"]
        except (OSError, ValueError):
            return None
        if target["health"] == "down":
            raise Wrong(f"the scrape failed: {target['lastError']}")
        return target if target["health"] == "up" else None


def text_is_as_promtool_wants_it(admin):
    text, headers = get(f"http://{admin}/metrics")
    if "openmetrics-text" not in headers["content-type"]:
        raise Wrong(f"the content type is {headers['content-type']}")
    if not re.search(r'_bucket\{le="\+Inf",[^}]*grpc_method="Get"\} [1-9]', text):
        raise Wrong("a histogram does not end with +Inf")
    print(f"{len(text.splitlines())} lines of metrics")


def every_rule_and_panel_is_about_what_there_is(prometheus):
    there = set(prometheus.ask("label/__name__/values")) | ONLY_WITH_TLS
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    if len(rules) != ALERTS.read_text().count("- alert:"):
        raise Wrong("Prometheus has other rules than the file")
    for rule in rules:
        if rule["health"] != "ok":
            raise Wrong(f"{rule['name']}: {rule['health']}: {rule.get('lastError')}")
    for expression in expressions + [rule["query"] for rule in rules]:
        # What Grafana would put there.
        expression = expression.replace("$__rate_interval", "5s").replace("$instance", ".*")
        names = set(NAME.findall(re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression))) - NO_METRICS
        if missing := names - there:
            raise Wrong(f"{expression}: there is no {missing}")
        alone = re.sub(r" > [\d.]+$| < 7.*$| == 0$", "", expression)
        if not prometheus.ask("query", query=alone)["result"] and not names & ONLY_WITH_TLS:
            raise Wrong(f"{expression} finds nothing")
    taken = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    if len(set(taken)) != len(taken):
        raise Wrong("two panels are in one place")
    print(f"{len(rules)} alerts and {len(expressions)} expressions of the dashboard are about what there is")


def alerts_go_off(server, prometheus):
    for number in range(10):
        server.do("create", f"full/{number}")
    goes_off = {"PailBucketsFull"}

    def going():
        return goes_off <= {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}

    until(going, "the alert of a server that is full")
    silent = {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]} - goes_off
    if silent:
        raise Wrong(f"these go off for nothing: {silent}")
    print("an alert goes off when it is to, and no other does")


def main():
    pail = pail_to_test(__doc__, has("prometheus", "promtool"))
    subprocess.run(["promtool", "check", "rules", ALERTS], check=True, stdout=subprocess.DEVNULL)
    tests = DEPLOY / "prometheus" / "alerts.test.yaml"
    subprocess.run(["promtool", "test", "rules", tests], check=True, stdout=subprocess.DEVNULL)
    admin = f"127.0.0.1:{free_ports(1)[0]}"
    with tempfile.TemporaryDirectory() as folder, Server(pail, "--admin", admin, "--buckets-max", "10") as server:
        for words in ("create b", "put b k v", "get b k"):
            server.do(*words.split())
        text_is_as_promtool_wants_it(admin)
        server.do("stop", "b")
        with Prometheus(folder, admin) as prometheus:
            until(prometheus.scrapes, "a scrape")
            # A rate is of two scrapes.
            until(lambda: prometheus.ask("query", query="rate(process_cpu_seconds_total[5s])")["result"], "a second scrape")
            every_rule_and_panel_is_about_what_there_is(prometheus)
            alerts_go_off(server, prometheus)


if __name__ == "__main__":
    end_as_told(main)
