"""Figures for Prometheus: what was asked, what it took, what the engines are doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from geex_jax.serving.served import Catalogue

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        here: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus.Counter(
            "geex_requests", "Requests answered.", ["route", "status"], **here
        )
        self.running = prometheus.Gauge("geex_requests_running", "Requests at work now.", **here)
        self.gone = prometheus.Counter(
            "geex_clients_gone", "Requests given up because the client went.", **here
        )
        self.seconds = prometheus.Histogram(
            "geex_request_seconds", "From the head of a request to the end of its answer.",
            ["route"], buckets=SECONDS, **here,
        )  # fmt: skip
        self.first = prometheus.Histogram(
            "geex_time_to_first_token_seconds", "From submission to the first token.",
            ["model"], buckets=SECONDS, **here,
        )  # fmt: skip
        self.between = prometheus.Histogram(
            "geex_inter_token_seconds", "Between tokens of a request, over each piece's tokens.",
            ["model"], buckets=SHORT, **here,
        )  # fmt: skip
        self.written = prometheus.Counter(
            "geex_generated_tokens", "Tokens drawn.", ["model"], **here
        )
        self.prompted = prometheus.Counter("geex_prompt_tokens", "Tokens read.", ["model"], **here)

    def tokens(self, model: str, count: int, seconds: float, first: bool) -> None:
        """Counts a piece of `count` tokens that came `seconds` after the last one."""
        self.written.labels(model).inc(count)
        if first:
            self.first.labels(model).observe(seconds)
        else:
            self.between.labels(model).observe(seconds / count)

    def watch(self, catalogue: Catalogue) -> None:
        """Adds the engines' own numbers, read when they are asked for."""
        self.registry.register(_Engines(catalogue))

    def render(self) -> tuple[bytes, str]:
        """The text of `/metrics` and its content type."""
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST


class _Engines(Collector):
    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def collect(self) -> Iterator[GaugeMetricFamily | HistogramMetricFamily]:
        families: dict[str, Any] = {}
        for name, served in self._catalogue.models.items():
            for key, value in _numbers(served.engine.stats()):
                kind = HistogramMetricFamily if isinstance(value, Mapping) else GaugeMetricFamily
                if key not in families:
                    about = f"{key} of the engine."
                    families[key] = kind(f"geex_engine_{key}", about, labels=["model"])
                if isinstance(value, Mapping):
                    bounds = [
                        ("+Inf" if bound == float("inf") else str(bound), count)
                        for bound, count in value["buckets"].items()
                    ]
                    families[key].add_metric([name], bounds, value["sum"])
                else:
                    families[key].add_metric([name], value)
        yield from families.values()


def _numbers(
    stats: Mapping[str, Any], head: str = ""
) -> Iterator[tuple[str, float | Mapping[str, Any]]]:
    for key, value in stats.items():
        key = "".join(c if c.isalnum() else "_" for c in f"{head}{key}")
        if isinstance(value, Mapping) and "buckets" in value:
            yield key, value
        elif isinstance(value, Mapping):
            yield from _numbers(value, f"{key}_")
        elif isinstance(value, int | float):
            yield key, float(value)
