"""Subjects an hour with one worker process and with two, and the memory of each.

    python benchmarks/bench_cohort.py FOLDER [--subjects 6] [--visits 2] [--baseline-only]
        [--workers 1 2]

Simulates patients with a skull at 1 mm as a BIDS data set in FOLDER (kept for the next call),
then finds their lesions and compares their visits once with one worker and once with two, each
into an empty folder. Wall time counts from the call to the last result, so it holds the start of
the workers and the reading of the model. Processor time stands beside it, since other work on the
machine disturbs it less; both are medians over subjects. Memory is the peak of the worker process
that had most. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from pathlib import Path

from lesionwise.cohort.cluster import Workers
from lesionwise.cohort.participant import participant
from lesionwise.cohort.records import read_record
from lesionwise.run.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--visits", type=int, default=2)
    parser.add_argument("--baseline-only", action="store_true", help="segment the first visit")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=41)
    arguments = parser.parse_args()
    dataset = simulate(
        arguments.folder / "bids",
        arguments.subjects,
        arguments.visits,
        arguments.seed,
        spacing_mm=(1.0, 1.0, 1.0),
    )
    print(
        "| workers | threads each | load before | wall (s) | subjects/h | wall s a subject "
        "| processor s a subject | peak memory of a worker (GiB) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for number in arguments.workers:
        output = arguments.folder / f"out-{number}"
        shutil.rmtree(output, ignore_errors=True)
        busy = os.getloadavg()[0]
        start = time.perf_counter()
        done = participant(
            dataset,
            output,
            participants=[f"sim{n:04d}" for n in range(1, arguments.subjects + 1)],
            sessions=("01",) if arguments.baseline_only else (),
            device="cpu",
            workers=Workers(number, arguments.threads),
        )
        wall = time.perf_counter() - start
        if done.failed:
            raise SystemExit("\n".join(done.failed))
        found = (read_record(folder) for folder in sorted(output.glob("sub-*")))
        records = [record for record in found if record is not None]
        wall_each = [record.seconds for record in records]
        busy_each = [record.cpu_seconds for record in records]
        print(
            f"| {number} | {arguments.threads} | {busy:.1f} | {wall:.0f} "
            f"| {3600 * len(wall_each) / wall:.0f} | {statistics.median(wall_each):.1f} "
            f"| {statistics.median(busy_each):.1f} "
            f"| {done.peak_mib / 1024:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
