"""What a job waits for, in words: Slurm's own words, and its sentences."""

import pytest

from launcher.report.listing import WIDEST
from launcher.slurm import reasons

# Words that 22.05 does not have; tests/slurm asks the Slurm that is installed for its own.
LATER = ("ReservationInvalid", "Constraints", "RaisedSignal")


@pytest.mark.parametrize("word", [*reasons.WORDS, *LATER])
def test_a_known_word_fits_a_table(word):
    reason = reasons.of(word)
    assert reason.word == word and 0 < len(reason.waits_for) <= WIDEST
    assert not reason.who or reason.how or reason.change  # who can help is told how


SAID = {
    # word: (what it waits for, who can help, what is said)
    "Resources": ("free nodes", "", "it starts by itself: sooner where it asks for fewer nodes"),
    "BeginTime": ("its begin time", "", "it starts by itself: at the time that it was given, or two minutes after"),
    "JobHeldUser": ("you: it is held", "you", "you can help: `scontrol release 7`"),
    "JobHeldAdmin": ("an admin: it is held", "an administrator", "an administrator can help: ask one why, and for `sc"),
    "PartitionTimeLimit": (
        "nothing: too much time", "you", "`sslrun cancel run1 runs=r`, then `sslrun resume run1 "
        "cluster.timeout_min=MINUTES runs=r`"
    ),
    "launch failed requeued held": ("you: it is held", "you", "`scontrol release 7` has it start elsewhere"),
    "launch_failed_requeued_held": ("you: it is held", "you", "`scontrol release 7`"),
    "ReqNodeNotAvail, UnavailableNodes:n[1-2]": ("nodes that are away", "", "`sinfo -R`"),
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "nodes that are away", "", "`sinfo -R`"
    ),
    "Job's account not permitted to use this partition (a allows b not c)": (
        "nothing: not its account", "you", "cluster.account=NAME"
    ),
    "Reservation tonight was deleted": ("nothing: no reservation", "you", "reservation=NAME"),
    "QOSMaxGRESPerUser": ("your other jobs", "", "they have all the GPUs that they may; a job that asks for"),
    "QOSMaxJobsPerUserLimit": ("your other jobs", "", "all the running jobs that they may; `sacctmgr show qos`"),
    "MaxJobsPerAccount": ("others in its account", "", "`sacctmgr show assoc`"),
    "AssocGrpCpuLimit": ("others in its account", "", "they have all the CPUs that they may"),
    "QOSGrpCPURunMinutesLimit": ("others in its QOS", "", "counted over the hours that they have left"),
    "AssocGrpCPUMinutesLimit": ("hours for its account", "an administrator", "are used up"),
    "QOSGrpWallLimit": ("hours for its QOS", "an administrator", "are used up"),
    "AssocMaxWallDurationPerJobLimit": ("nothing: too much time", "you", "cluster.timeout_min=MINUTES"),
    "QOSMaxGRESPerNode": ("nothing: too many GPUs", "you", "tasks_per_node=N"),
    "QOSMaxMemoryPerJob": ("nothing: too much memory", "you", "cluster.mem_gb=GB"),
    "AssocMaxGRESMinutesPerJob": ("nothing: too much time", "you", "cluster.timeout_min=MINUTES"),
    "QOSMinCpuNotSatisfied": ("nothing: too few CPUs", "you", "wants more of a job"),
}  # fmt: skip


@pytest.mark.parametrize("word", SAID)
def test_who_can_help_and_how(word):
    waits_for, who, how = SAID[word]
    reason = reasons.of(word)
    assert (reason.word, reason.waits_for, reason.who) == (word, waits_for, who)
    line = reason.said("7", "run1", " runs=r")
    assert line.startswith(f"{waits_for} ({word}); ") and how in line and "{" not in line


@pytest.mark.parametrize("word", ["SomethingNew", "QOSMaxElephantsPerUser", "a sentence, nobody knows (why {job})", ""])
def test_one_that_is_not_known_stands_alone(word):
    reason = reasons.of(word)
    assert reason == reasons.Reason(word)
    assert reason.short() == reason.said("7", "run1") == word


def test_the_word_stands_beside_where_there_is_room():
    reason = reasons.of("Resources")
    assert reason.short() == reason.short(22) == "free nodes (Resources)"
    assert reason.short(21) == "free nodes"


def test_who_has_no_run_is_told_what_to_ask_for():
    assert (
        reasons.of("PartitionTimeLimit")
        .said("7")
        .endswith("; you can help: the partition gives less: ask for cluster.timeout_min=MINUTES")
    )
