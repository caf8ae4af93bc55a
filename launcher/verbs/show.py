"""`sslrun show`: one run."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from launcher.verbs import arguments

EXAMPLE = "sslrun show deepercluster-demo"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """One run: state, progress, restarts, evaluations."""
    from launcher.compose import evaluation
    from launcher.report import ahead, behind, view
    from launcher.report.screen import console
    from launcher.run import heartbeats, slow_ranks
    from launcher.run.waiting import WAITS
    from launcher.slurm import queue, reasons

    found = arguments.find(options)
    evaluations = evaluation.every(found)
    jobs, _ = queue.of_runs([found, *evaluations])
    summary = found.summary(jobs)
    summary["evaluations"] = {e.path.name: e.state(jobs).name for e in evaluations}
    summary["message"] = queue.last_words(found) or summary["message"]
    # Only while it runs does silence mean anything.
    late = heartbeats.slowest(found) if summary["state"] == "running" and not summary["suspended"] else []
    pending = summary["state"] == "pending"
    before = behind.standing([found], jobs).get(found.path, []) if pending else []
    job = (jobs or {}).get(summary["job"])
    reason = reasons.of(job.reason if job and job.state == "PENDING" else "")
    saved, doing = summary["checkpoint"], found.doing(summary["state"], found.history())
    now = {
        "step": doing.get("step", 0),
        "seconds_left": doing.get("seconds_left"),
        "checkpoint_step": int(saved.rpartition("_")[2]) if saved else None,
        "job_left": job.left if job else "",
    }
    foreseen = ahead.of_run(found, {**summary, **now})
    if options.json:
        found_out = {
            "foreseen": foreseen,
            "why_pending": reason.word,
            "behind": before,
            "waits_for": [asdict(suspect) for suspect in late],
        }
        print(json.dumps({**summary, **found_out}))
        return 0
    summary["done"] = ahead.said(foreseen)
    summary["slow_ranks"] = slow_ranks.said(summary["slow_ranks"])
    summary["leave_out"] = slow_ranks.what_to_type(summary, arguments.runs_option(found))
    if summary["message"] == reason.word:  # which `waits_for` says in words
        summary["message"] = ""
    if before:
        summary["waits_for"] = behind.in_words(before, found.runs, arguments.runs_option(found))
    elif reason.word:
        summary["waits_for"] = reason.said(summary["job"], found.id, arguments.runs_option(found))
    if summary["state"] == "running":
        stage = found.doing("running", found.history()).get("stage") or ""
        slurm = "Slurm, which has suspended its job" if summary["suspended"] else ""
        said = stage.removeprefix(WAITS) if stage.startswith(WAITS) else ""
        summary["waits_for"] = slurm or heartbeats.named(late) or said
        summary["stage"] = "" if said else stage
        stalled = heartbeats.stalled(found)
        if stalled:
            summary["stalled"] = f"{len(stalled)} ranks; their stacks are in {found.path / 'logs'}"
    view.show(view.in_words(summary), console())
    return 0
