"""The pipeline on a schedule, under a Prefect server that keeps running."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

os.environ.setdefault("DO_NOT_TRACK", "1")  # read while Prefect is imported

from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.sorting import FlowRunSort
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

from flows.pipeline import GRAPH, answers, pipeline
from stages.core import interrupts
from stages.core.errors import UserError
from stages.core.printing import protect_printing

EXAMPLE = "http://127.0.0.1:4200/api"


def main() -> int:
    """Run the schedule until the command is ended. Returns 2 if there is no server or the schedule is invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.schedule",
        description="Run the pipeline of this folder on a schedule, as long as this command runs.",
        epilog='example: python -m flows.schedule --cron "0 3 * * *" --timezone Europe/Berlin',
    )
    parser.add_argument("--cron", required=True, help="minute, hour, day, month, weekday")
    parser.add_argument("--timezone", default="UTC", help="of the schedule (default: UTC)")
    chosen = parser.parse_args()
    interrupts.raised()
    protect_printing()
    try:
        schedule = parse(chosen.cron, chosen.timezone)
        if not GRAPH.is_file():
            raise UserError("project-not-found", f"there is no {GRAPH} here: run this in the project's folder")
        require_server(PREFECT_API_URL.value())
    except UserError as error:
        print(error.line, file=sys.stderr)
        return 2
    serve(schedule)
    return 0


def parse(cron: str, timezone: str) -> Any:
    """Parse a schedule.

    Raises:
        UserError: `cron` or `timezone` is invalid.
    """
    try:
        ZoneInfo(timezone)
    except (ValueError, LookupError) as error:
        raise UserError(
            "schedule-unknown-timezone", f"--timezone {timezone!r} is unknown: write one such as Europe/Berlin"
        ) from error
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        raise UserError(
            "schedule-invalid-cron", f"--cron: {error}: write it as in '0 3 * * *', every day at three"
        ) from error


def require_server(url: str | None) -> None:
    """Check that a Prefect server answers.

    Raises:
        UserError: none does.
    """
    if not url:
        raise UserError(
            "prefect-no-server",
            f"no Prefect server is set: `prefect server start`, then `export PREFECT_API_URL={EXAMPLE}`",
        )
    if not answers(url):
        raise UserError(
            "prefect-no-server",
            f"no Prefect server answers at {url}: `prefect server start`, or set another PREFECT_API_URL",
        )


def serve(schedule: Any) -> None:
    """Run the pipeline on the schedule. Runs that came due while this command was not running are cancelled."""
    deployment = Path.cwd().name
    cancel_late(deployment)
    # Each run is a process that must find the package `stages`.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    pipeline.serve(
        name=deployment,
        schedule=schedule,
        pause_on_shutdown=False,
        # A run that comes due during another is cancelled: the next one sees the same data and more.
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )


def cancel_late(deployment: str) -> None:
    """Cancel overdue runs: Prefect would run all of them, oldest first."""
    overdue = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": datetime.now(UTC)}}
    )
    this_deployment = DeploymentFilter.model_validate({"name": {"any_": [deployment]}})
    with get_client(sync_client=True) as client:
        while late := client.read_flow_runs(
            flow_run_filter=overdue,
            deployment_filter=this_deployment,
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=100,
        ):
            for run in late:
                client.set_flow_run_state(
                    run.id, Cancelled(message="came due while nothing ran the schedule"), force=True
                )


if __name__ == "__main__":
    sys.exit(main())
