"""Metrics: what happens, as Prometheus reads it.

Owns the names and the registry. Must never be asked on the hot path for more than an addition: what services count by
themselves is read when it is scraped. Assumes one registry a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

Reading = tuple[str, str, str, Callable[[], float | dict[str, float]]]
"""Kind (`gauge` or `counter`), name, meaning, and where the value is; a dictionary is one value a label."""


class Metrics:
    """One process's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, meaning: str, buckets: Iterable[float] = SECONDS) -> Histogram:
            return Histogram(f"realtime_{name}", meaning, buckets=tuple(buckets), registry=self.registry)

        def counter(name: str, meaning: str, label: str) -> Counter:
            return Counter(f"realtime_{name}", meaning, [label], registry=self.registry)

        self.batch_size = histogram("batch_size", "Submissions in one statement", SIZES)
        self.commit_seconds = histogram("commit_seconds", "From a batch's start to its commit")
        self.store_seconds = histogram("store_seconds", "One batch's way into the store")
        self.submit_to_diff_seconds = histogram("submit_to_diff_seconds", "From a submission's arrival to its diff")
        self.pass_seconds = histogram("pass_seconds", "One slice of deliveries")
        self.loop_lag_seconds = histogram("loop_lag_seconds", "How late the event loop is, twice a second")
        self.refusals = counter("refusals_total", "Requests and messages refused, by code", "code")
        self.closes = counter("closes_total", "Sockets closed by the server, by close code", "code")

    def read(self, readings: Iterable[Reading]) -> None:
        """Adds values that are read when they are scraped."""
        self.registry.register(_Readings(list(readings)))

    def exposition(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _Readings(Collector):
    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for kind, name, meaning, value_of in self._readings:
            family = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
            value = value_of()
            labelled = isinstance(value, dict)
            metric = family(f"realtime_{name}", meaning, labels=["of"] if labelled else None)
            for label, one in value.items() if isinstance(value, dict) else [("", value)]:
                metric.add_metric([label] if labelled else [], one)
            yield metric
