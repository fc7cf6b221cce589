"""Figures: percentiles, process memory, histogram shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import psutil
from prometheus_client.parser import text_string_to_metric_families


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return count, p50, p95, p99 and the largest, in milliseconds."""
    return {
        "n": len(seconds),
        "p50_ms": round(percentile(seconds, 0.50) * 1000, 1),
        "p95_ms": round(percentile(seconds, 0.95) * 1000, 1),
        "p99_ms": round(percentile(seconds, 0.99) * 1000, 1),
        "max_ms": round(max(seconds) * 1000, 1),
    }


def memory_mb(pids: Mapping[str, int]) -> dict[str, float]:
    """Return what each process and its children hold for themselves (USS), in MB."""
    shown: dict[str, float] = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        shown[name] = round(sum(one.memory_full_info().uss for one in family) / 1e6, 1)
    return shown


def stage_seconds(metrics: str) -> dict[str, float]:
    """Return the seconds spent in each stage so far, from a /metrics page."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name == "deskhand_stage_seconds":
            for sample in family.samples:
                if sample.name.endswith("_sum"):
                    sums[sample.labels["stage"]] = sample.value
    return sums


def shares(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return each stage's share of the time between two readings."""
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    total = sum(spent.values()) or 1.0
    return {
        name: round(value / total, 3)
        for name, value in sorted(spent.items(), key=lambda item: -item[1])
    }
