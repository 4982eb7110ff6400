"""Metrics: what happens, as Prometheus reads it.

Owns the names, the registry, and how the figures of several processes become one answer. Must never be asked on the
hot path for more than an addition: what services count by themselves is read when it is scraped. Assumes one registry a
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from realtime.errors import StartupError

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
"""Upper bounds of the buckets of histograms: of times, and of numbers of submissions."""

Figure = tuple[str, str, str, Callable[[], float | dict[str, float]]]
"""Kind (`gauge` or `counter`), name, meaning, and who tells the value; a dictionary is one value for each label."""

LAG_INTERVAL: Final = 0.5
"""Seconds between two looks at how late the event loop is."""


def summed(expositions: Iterable[str]) -> list[Metric]:
    """The same metrics with the samples of all added up."""
    found: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in expositions:
        for metric in text_string_to_metric_families(text):
            found.setdefault(metric.name, metric)
            values = sums.setdefault(metric.name, {})
            for sample in metric.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                values[key] = values.get(key, 0.0) + sample.value
    for name, metric in found.items():
        metric.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in sums[name].items()]
    return list(found.values())


def samples(exposition: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The values of a text in the format of Prometheus, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in text_string_to_metric_families(exposition)
        for sample in metric.samples
    }


def exposed(metrics: Iterable[Metric]) -> bytes:
    """These metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(list(metrics)))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class Metrics:
    """One process's metrics. `others` brings what the other processes on the same port last showed."""

    def __init__(self, others: Callable[[], list[str]] = list) -> None:
        self.registry = CollectorRegistry()
        self._deployment = CollectorRegistry()  # what is true of all processes together: never added up
        self._others = others

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
        self.limited = counter("limited_total", "Requests and submissions beyond a limit, by limit", "limit")
        self.closes = counter("closes_total", "Sockets that have ended, by close code; 1006: without one", "code")

    def read(self, figures: Iterable[Figure]) -> None:
        """Adds values that are read when they are scraped."""
        self.registry.register(_Figures(list(figures)))

    def read_once(self, figures: Iterable[Figure]) -> None:
        """Adds values that every process would tell alike, such as how many rows wait in the outbox."""
        self._deployment.register(_Figures(list(figures)))

    def exposition(self) -> bytes:
        """Everything of every process, in the text format of Prometheus."""
        own, others = self.own(), self._others()
        if others:
            own = exposed(summed([own.decode(), *others]))
        return own + generate_latest(self._deployment)

    def own(self) -> bytes:
        """What this process counts, in the same format."""
        return exposed(metric for metric in map(_without_created, self.registry.collect()))

    def serve(self, host: str, port: int) -> None:
        """Shows the metrics at `/metrics` of a port of their own: for a process that serves nothing else.

        Raises StartupError.
        """
        try:
            start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise StartupError(f"Cannot show metrics on {host}, port {port}: {error.strerror}.") from None

    async def watch_lag(self) -> None:
        """Looks how late the event loop is. Never ends by itself."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.loop_lag_seconds.observe(max(0.0, loop.time() - due))


def _without_created(metric: Metric) -> Metric:
    """The moment a counter began says nothing once several are added up."""
    metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return metric


class _Figures(Collector):
    def __init__(self, figures: list[Figure]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        for kind, name, meaning, value_of in self._figures:
            family = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
            value = value_of()
            labelled = isinstance(value, dict)
            metric = family(f"realtime_{name}", meaning, labels=["of"] if labelled else None)
            for label, one in value.items() if isinstance(value, dict) else [("", value)]:
                metric.add_metric([label] if labelled else [], one)
            yield metric
