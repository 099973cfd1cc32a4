"""Prometheus metrics of the control plane."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pandastack.products.databases import Databases
from pandastack.services import ControlPlane

CONTENT_TYPE = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pandastack_http_requests",
            "HTTP requests by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "pandastack_http_request_seconds",
            "Time from a request to the end of its response.",
            ("route",),
            buckets=_LATENCY_BUCKETS,
            registry=self._registry,
        )

    def watch(self, plane: ControlPlane, databases: Databases) -> None:
        """Start to report the sandboxes of ``plane``, the databases and their archives."""
        self._registry.register(_Sandboxes(plane))
        self._registry.register(_Databases(databases))
        self._registry.register(_EachDatabase(databases))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. ``route`` is the pattern, not the path: the number of series must stay bounded."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _Sandboxes(Collector):
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Any]:
        """Sandboxes by status, counted when the metrics are read."""
        gauge = GaugeMetricFamily("pandastack_sandboxes", "Sandboxes by status.", labels=("status",))
        for status, number in Count(record.status for record in self._plane.registry.all()).items():
            gauge.add_metric([status], number)
        yield gauge
        traffic = CounterMetricFamily(
            "pandastack_network_bytes", "Bytes that sandboxes have received and sent.", labels=("direction",)
        )
        traffic.add_metric(["in"], self._plane.traffic.total_in)
        traffic.add_metric(["out"], self._plane.traffic.total_out)
        yield traffic


class _Databases(Collector):
    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Any]:
        """Databases by status, their archives by state, and how restores ended that were tried out."""
        databases = GaugeMetricFamily("pandastack_databases", "Databases by status.", labels=("status",))
        for status, number in self._databases.count().items():
            databases.add_metric([status], number)
        yield databases
        archives = GaugeMetricFamily("pandastack_database_archives", "Archives by state.", labels=("state",))
        for state, number in self._databases.archives.states().items():
            archives.add_metric([state], number)
        yield archives
        drills = CounterMetricFamily(
            "pandastack_database_drills", "Restores of databases that were tried out.", labels=("result",)
        )
        for result, number in self._databases.archives.drills.results.items():
            drills.add_metric([result], number)
        yield drills


class _EachDatabase(Collector):
    """Series with the id of a database. Those of one that is deleted are gone with its record."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Any]:
        """Numbers of the last look at each. What only a running server has is left out of one that sleeps."""
        awake = _gauge("awake", "Whether the database runs: 1 or 0.")
        size = _gauge("size_bytes", "Bytes of all databases of its server.")
        lag = _gauge("archive_lag_bytes", "Bytes of its log that are not archived yet.")
        connections = _gauge("connections", "Sessions of clients.")
        hits = _gauge("cache_hit_ratio", "Share of blocks that its server found in its memory.")
        wal = CounterMetricFamily("pandastack_database_wal_bytes", "Where its log ends.", labels=("database",))
        for each in self._databases.looks.all():
            key, numbers = [each.database_id], each.numbers
            awake.add_metric(key, each.is_awake)
            if each.archive_lag_bytes is not None:
                lag.add_metric(key, each.archive_lag_bytes)
            if numbers is not None:
                size.add_metric(key, numbers.db_size_bytes)
                wal.add_metric(key, numbers.wal_bytes)
            if numbers is not None and each.is_awake:
                connections.add_metric(key, numbers.connections)
                if numbers.cache_hit_ratio is not None:
                    hits.add_metric(key, numbers.cache_hit_ratio)
        yield from (awake, size, lag, connections, hits, wal)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pandastack_database_{name}", text, labels=("database",))
