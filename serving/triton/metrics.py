"""The metrics of a running server, which it publishes in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from serving.triton import loopback


class Sample(NamedTuple):
    """One value of a metric, such as the number of requests to one model."""

    metric: str
    labels: Mapping[str, str]
    value: float


def read(address: str) -> Iterator[Sample]:
    """Yield all samples that the server at HOST:PORT publishes; nothing where it does not answer."""
    from prometheus_client.parser import text_string_to_metric_families

    content = loopback.get(address, "/metrics")
    for family in text_string_to_metric_families(content.decode()) if content else ():
        for sample in family.samples:
            yield Sample(family.name, sample.labels, sample.value)
