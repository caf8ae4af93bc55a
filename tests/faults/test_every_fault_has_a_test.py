"""The faults that a run must survive, and what injects them for real. `make faults` runs these tests.

| fault | outcome | `sslrun drill` | tests beside it |
|---|---|---|---|
| 1 a rank is killed | ends soon, resumes from the last commit | kill-rank-0, -last-rank, -launcher | contract, keeps |
| 2 killed while it saves | the old or the new checkpoint | kill-in-save | checkpoint_is_whole_or_absent |
| 3 a data-loader process is killed | an error, no hang; as 1 | kill-loader-worker | |
| 4 a node is lost | same job: elsewhere, or in place with a spare | node-down, -with-a-spare | a_lost_, a_spare_node |
| 5 one rank or all are told to stop | one stop, one save, one requeue | term-/usr2-to-one-rank, scancel-usr2 | |
| 6 scancel | stays cancelled, resumed by hand | scancel | |
| 7 preemption | saved in the grace, restarted once | preemption | between_two_starts |
| 8 done within the grace | stays done | done-in-the-grace | |
| 9 the time limit | saved, restarted, counted as that | time-limit | |
| 10 told at any moment, and again | one stop, one save | signal-*, preemption-at-start | |
| 11 the disk is full | said, goes on; for good: stops | one-rank-cannot-write, no-rank-can-write | full_disk |
| 12 the newest checkpoint is damaged | the older one; none: never from 0 | truncated-, flipped-, missing-, no- | as 2 |
| 13 two generations | one writer; the stale commits nothing | second-submission, stale-generation | same_spec_joins |
| 14 files are slow | the last commit stands | kill-in-slow-save, preempt-in-slow-save (simulated) | |
| 15 a rank hangs | all end, stacks, restarted; suspended: goes on | stopped-rank | health, a_suspended |
| 16 clocks are off | nothing changes | wrong-clocks (simulated) | health |
| 17 a crash at every start | stops for good, exit code 5 | crash-at-every-start | |
| 18 other numbers of ranks | refused with the reason, or handled | impossible-layout | another_count |
| 19 exactness | the same state, byte for byte | every one of these | contract |
| 20 pruning | never the last that verifies | prune-beside-a-broken-one | prune_keeps |
| 21 the submitter is killed | one job | | a_killed_submitter |
| 22 a file cannot be read for a moment | waited for; nothing is set aside | files-away (simulated) | cannot_be_read |
| 23 the screen goes away | goes on, or saves and stops | | outlives_its_screen |
| 24 others lay files and links where a run is | read as data, followed nowhere | | others_prepared, links |
"""

import ast
import re
from pathlib import Path

import pytest

from launcher.drill.catalog import faults, select
from launcher.errors import InputError

TESTS = Path(__file__).parents[1]
# Beside what `sslrun drill` injects; files, since their tests are named after what they promise.
BESIDE = {
    1: ["methods/test_contract.py", "slurm/test_fault_a_job_keeps_its_nodes.py"],
    2: ["launcher/runtime/test_checkpoint_is_whole_or_absent.py"],
    4: [
        "slurm/test_fault_a_lost_node_is_survived.py",
        "slurm/test_fault_a_spare_node_takes_over.py",
        "slurm/test_fault_a_requeue_waits_for_what_is_away.py",
    ],
    7: ["slurm/test_fault_a_preemption_between_two_starts.py"],
    11: [
        "launcher/runtime/test_full_disk_leaves_no_half_checkpoint.py",
        "launcher/runtime/test_checkpoint_is_whole_or_absent.py",
    ],
    12: ["launcher/runtime/test_checkpoint_is_whole_or_absent.py"],
    13: ["launcher/start/test_same_spec_joins.py", "slurm/test_a_run_trains_on_slurm.py"],
    15: [
        "launcher/runtime/test_health_names_the_rank_that_others_wait_for.py",
        "launcher/runtime/test_a_suspended_rank_is_not_stuck.py",
        "launcher/runtime/test_a_pause_ends_no_collective.py",
        "slurm/test_fault_a_suspended_job_goes_on.py",
    ],
    16: ["launcher/runtime/test_health_names_the_rank_that_others_wait_for.py"],
    18: ["slurm/test_fault_another_count_of_nodes.py"],
    19: ["methods/test_contract.py"],
    20: ["launcher/run/test_prune_keeps_the_last_verified_checkpoint.py"],
    21: ["slurm/test_a_killed_submitter_leaves_one_job.py"],
    22: [
        "launcher/run/test_what_cannot_be_read_is_not_damaged.py",
        "methods/engine/test_what_a_run_starts_from_is_waited_for.py",
        "faults/test_a_disturbed_run_ends_as_an_undisturbed_one.py",
    ],
    23: ["launcher/start/test_a_run_outlives_its_screen.py"],
    24: [
        "launcher/run/test_files.py",
        "launcher/run/test_pruning_follows_no_link.py",
        "launcher/report/test_folders_of_others.py",
        "launcher/start/test_what_others_prepared_is_not_run.py",
    ],
}
DRILLED = sorted([*TESTS.glob("faults/test_faults*.py"), *TESTS.glob("slurm/test_fault_*.py")])


def words(file: Path) -> set:
    """The text constants of a file."""
    return {
        n.value
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


@pytest.mark.parametrize("number", range(1, 25))
def test_it_is_injected_by_a_test(number):
    injected = [f.name for f in faults() if f.number == number and any(f.name in words(file) for file in DRILLED)]
    beside = [TESTS / file for file in BESIDE.get(number, [])]
    assert injected or beside
    for file in beside:
        assert re.search(r"^def test_", file.read_text(), re.MULTILINE), file
    for file in (*DRILLED, *beside):
        marks = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
        assert any(ast.unparse(mark) == "pytest.mark.fault" for mark in marks), file


def test_every_fault_of_the_drill_is_drilled_in_a_test_wherever_it_can_be():
    places = {"local": "faults", "slurm": "slurm"}
    missing = [
        f"{fault.name} on {place}"
        for fault in faults()
        for place in fault.causes
        if not any(fault.name in words(file) for file in DRILLED if file.parent.name == places[place])
        # The same code in both places; here it needs no queue.
        and not (place == "slurm" and fault.family in ("corruption", "signals") and "local" in fault.causes)
    ]
    assert not missing


def test_the_table_names_every_fault_and_every_fault_is_of_the_table():
    rows = [int(n) for n in re.findall(r"^\| (\d+) ", __doc__, re.MULTILINE)]
    assert rows == list(range(1, 25))
    assert {fault.number for fault in faults()} | BESIDE.keys() == set(rows)


def test_faults_are_chosen_by_number_and_by_name():
    assert {f.number for f in select("1,15")} == {1, 15}
    assert [f.name for f in select("scancel")] == ["scancel"]
    assert select("all") == list(faults())
    with pytest.raises(InputError, match="no such fault"):
        select("1,25")
