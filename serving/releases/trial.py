"""The trial of a new release: its conditions, what it has measured, and how that is judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """The conditions of a trial. A pair is a request that was sent to the new and to the live release."""

    share: float  # of the requests that are sent to both releases
    shadow: bool  # whether callers get only the live release's answers
    requests: int  # pairs that a decision needs
    minutes: float  # that the trial may take
    late_s: float  # seconds after which the new release has failed; the caller gets the live one's answer
    max_failures: float  # share of the pairs
    max_latency_ratio: float  # of the new release's median latency to the live one's
    max_disagreement: float  # share of the pairs


@dataclass(frozen=True)
class Figures:
    """What a trial has measured so far. Latencies in seconds."""

    pairs: int = 0
    failures: int = 0
    disagreements: float = 0.0
    live_p50_s: float = 0.0
    live_p99_s: float = 0.0
    new_p50_s: float = 0.0
    new_p99_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.pairs:,} pairs, {self.failures:,} failed, {self.disagreements:.4g} with another prediction; median"
            f" {self.new_p50_s * 1000:.2f} ms against {self.live_p50_s * 1000:.2f} ms, p99"
            f" {self.new_p99_s * 1000:.2f} ms against {self.live_p99_s * 1000:.2f} ms"
        )


def judge(figures: Figures, trial: Trial, over: bool) -> list[str]:
    """List the reasons to withdraw a release, as sentences; none while it may still meet all conditions.

    Args:
        figures: what was measured so far.
        trial: the conditions.
        over: whether the time is up.
    """
    reasons = []
    planned = max(trial.requests, figures.pairs)
    for count, limit, happened in (
        (figures.failures, trial.max_failures, "failed or came late"),
        (figures.disagreements, trial.max_disagreement, "got another prediction"),
    ):
        if count > limit * planned + 1e-9:
            allowed = f"at most {limit * planned:.4g} of {planned:,} may"
            reasons.append(f"{count:.4g} of {figures.pairs:,} requests {happened}; {allowed}")
    if over and figures.pairs < trial.requests:
        reasons.append(
            f"both releases got {figures.pairs:,} requests within {trial.minutes:g} minutes, which is too few to judge:"
            f" it takes {trial.requests:,}"
        )
    elif figures.pairs >= trial.requests and figures.new_p50_s > trial.max_latency_ratio * figures.live_p50_s:
        reasons.append(
            f"its median latency is {figures.new_p50_s * 1000:.2f} ms against {figures.live_p50_s * 1000:.2f} ms,"
            f" {figures.new_p50_s / figures.live_p50_s:.2f} times as long; at most {trial.max_latency_ratio:g} times is"
            " allowed"
        )
    return reasons
