"""Why Slurm does not start a job that waits, in words: who can help, and how.

Slurm has two hundred words for it (`enum job_state_reason`), most of which name a limit and follow one pattern, and
some sentences. Those of 22.05 and of 25.11 are here.
"""

import re
from dataclasses import dataclass, replace

YOU, ADMIN, NOBODY = "you", "an administrator", ""


@dataclass(frozen=True)
class Reason:
    """`word`: Slurm's own. `waits_for`: a few words, empty where it is not known. `who` can help: YOU, ADMIN, or NOBODY
    where it starts by itself. `how`: half a sentence. `change`: what to ask for instead, as an override."""

    word: str
    waits_for: str = ""
    who: str = NOBODY
    how: str = ""
    change: str = ""

    def short(self, width: int = 80) -> str:
        """For a table: in words, with Slurm's own beside them where both fit."""
        both = f"{self.waits_for} ({self.word})"
        return both if self.waits_for and len(both) <= width else self.waits_for or self.word

    def said(self, job: str, run: str = "", more: str = "") -> str:
        """The whole, in one line. run: whose job it is, where it is one's; more: what finds it, behind its id."""
        if not self.waits_for:
            return self.word
        how = self.how.replace("{job}", job)
        if self.change:
            line = f"`sslrun cancel {run}{more}`, then `sslrun resume {run} {self.change}{more}`"
            how += f": {line if run else f'ask for {self.change}'}"
        helps = f"{self.who} can help" if self.who else "it starts by itself"
        return f"{self.waits_for} ({self.word}); {helps}{how and ': '}{how}"


def of(word: str) -> Reason:
    """What Slurm means by `word`, which may be a sentence. One that is not known has no words beside it."""
    said = word.replace("_", " ")  # as scontrol writes it
    known = WORDS.get(said.partition(",")[0]) or next((means for begin, means in TEXTS if begin.match(said)), None)
    return replace(known, word=word) if known else (_limit(word) or Reason(word))


def _known(waits_for: str, who: str = NOBODY, how: str = "", change: str = "") -> Reason:
    return Reason("", waits_for, who, how, change)


FEWER = "sooner where it asks for fewer nodes, or for less time (cluster.timeout_min)"
RELEASE = "`scontrol release {job}`"
AWAY = _known("nodes that are away", NOBODY, f"`sinfo -R` says which are down, and why; {FEWER}")
PARTITION, TIME = "cluster.partition=NAME", "cluster.timeout_min=MINUTES"
ENDED = "its last start ended so"  # a word for jobs that are over, which one that waits again may keep for a moment
JOBS = _known("the end of other jobs", NOBODY, "your account or QOS has as many as it may")
HELD = _known("you: it is held", YOU, f"a node could not start it (`sinfo -R`); {RELEASE} has it start elsewhere")
ACCOUNT = _known("nothing: not its account", YOU, "it may not be used there", "cluster.account=NAME")
QOS = _known("nothing: not its QOS", YOU, "it may not be used there", "cluster.qos=NAME")
RESERVED = "the reservation is gone or not yours; `scontrol show reservation` lists them"
GONE = _known("nothing: no reservation", YOU, RESERVED, "cluster.additional_parameters.reservation=NAME")
SYSTEM = "tell one what `scontrol show job {job}` says"

BEGIN = "at the time that it was given, or two minutes after it was put back into the queue"

WORDS = {
    "WaitingForScheduling": _known("Slurm's first look"),
    "None": _known("Slurm's first look"),
    "Priority": _known("jobs before it", NOBODY, FEWER),
    "Resources": _known("free nodes", NOBODY, FEWER),
    "SchedDefer": _known("Slurm's next look"),
    "Dependency": _known("another job's end", NOBODY, "`scontrol show job {job}` says whose (Dependency)"),
    "DependencyNeverSatisfied": _known(
        "nothing: a job failed",
        YOU,
        "the job that it waits for did not end as it was to; `scancel {job}`, mend that one",
    ),
    "BeginTime": _known("its begin time", NOBODY, BEGIN),
    "JobHeldUser": _known("you: it is held", YOU, RELEASE),
    "JobHeldAdmin": _known("an admin: it is held", ADMIN, f"ask one why, and for {RELEASE}"),
    "JobHoldMaxRequeue": replace(HELD, how=f"nodes could not start it too often; {RELEASE}"),
    "PartitionDown": _known(
        "a partition that is down", ADMIN, "it starts once that is up again, or elsewhere", PARTITION
    ),
    "PartitionInactive": _known(
        "an inactive partition", ADMIN, "it starts once that is up again, or elsewhere", PARTITION
    ),
    "PartitionNodeLimit": _known(
        "nothing: too many nodes", YOU, "the partition gives fewer, or has some down (`sinfo -R`)", "nodes=N"
    ),
    "PartitionTimeLimit": _known("nothing: too much time", YOU, "the partition gives less", TIME),
    "PartitionConfig": _known("nothing: not its partition", YOU, "it is not for such jobs", PARTITION),
    "ReqNodeNotAvail": AWAY,
    "NodeDown": _known("a node that is down", ADMIN, "`sinfo -R` says which, and why"),
    "FrontEndDown": _known("a front end that is down", ADMIN, SYSTEM),
    "BadConstraints": _known(
        "nothing: no such node",
        YOU,
        "no node has all of cluster.constraint, gres, mem_gb and cpus_per_task",
        "cluster.constraint=X",
    ),
    "Constraints": _known(
        "nothing: no such node", YOU, "no node has all of cluster.constraint", "cluster.constraint=X"
    ),
    "Licenses": _known("licenses", NOBODY, "`scontrol show licenses` counts them"),
    "Reservation": _known("its reservation", NOBODY, "`scontrol show reservation` says when it begins"),
    "ReservationDeleted": GONE,
    "ReservationInvalid": GONE,
    "InvalidAccount": replace(ACCOUNT, how="there is no such account"),
    "InvalidQOS": replace(QOS, how="there is no such QOS"),
    "AccountNotAllowed": ACCOUNT,
    "QOSNotAllowed": QOS,
    "AccountingPolicy": _known("room in its limits", NOBODY, "`sacctmgr show assoc` and `sacctmgr show qos` list them"),
    "AssociationJobLimit": JOBS,
    "AssociationResourceLimit": JOBS,
    "AssociationTimeLimit": _known("nothing: too much time", YOU, "its account gives less", TIME),
    "QOSJobLimit": JOBS,
    "QOSResourceLimit": JOBS,
    "QOSTimeLimit": _known("nothing: too much time", YOU, "its QOS gives less", TIME),
    "QOSUsageThreshold": _known("less use by its QOS", NOBODY, "that has used more than its share lately"),
    "MaxMemPerLimit": _known("nothing: too much memory", YOU, "a node gives less", "cluster.mem_gb=GB"),
    "JobArrayTaskLimit": _known("its turn in the array", NOBODY, "cluster.array_parallelism says how many run at once"),
    "Cleaning": _known("its last start to be gone", NOBODY, "Slurm ends what that has left on its nodes"),
    "Prolog": _known("the cluster's prolog", NOBODY, "what the administrators have run before a job"),
    "BurstBufferResources": _known("room in a burst buffer"),
    "BurstBufferStageIn": _known("data in a burst buffer"),
    "BurstBufferOperation": _known("a burst buffer that failed", ADMIN, SYSTEM),
    "PowerNotAvail": _known("power", NOBODY, "the cluster uses as much as it may"),
    "PowerReserved": _known("power", NOBODY, "it is reserved for others"),
    "FedJobLock": _known("the federation's answer"),
    "BlockMaxError": _known("a block without errors", ADMIN, SYSTEM),
    "BlockFreeAction": _known("a block to be free"),
    "JobLaunchFailure": _known("a start that failed", ADMIN, SYSTEM),
    "SystemFailure": _known("Slurm, which failed", ADMIN, SYSTEM),
    **dict.fromkeys(
        ("NonZeroExitCode", "RaisedSignal", "TimeLimit", "InactiveLimit", "OutOfMemory", "DeadLine"),
        _known("its next start", NOBODY, ENDED),
    ),
}

# Sentences in the place of a word, by their beginning.
TEXTS = [
    (re.compile(begin, re.IGNORECASE), means)
    for begin, means in {
        r"nodes required for job are DOWN": AWAY,
        r"(launch|user env retrieval) failed requeued held": HELD,
        r"job requeued in (held|special exit) state": replace(HELD, how=RELEASE),
        r"Reservation \S+ was deleted": GONE,
        r"Job's account not permitted": ACCOUNT,
        r"Job's QOS not permitted": QOS,
        r"Invalid account": WORDS["InvalidAccount"],
        r"Invalid qos": WORDS["InvalidQOS"],
        r"Prolog/Epilog failure": WORDS["JobLaunchFailure"],
        r"(burst_buffer/|Burst buffer)": WORDS["BurstBufferOperation"],
        r"Job is at or exceeds": replace(JOBS, who=ADMIN, how="what it may use is used up; ask for more"),
    }.items()
]

# Limits: QOSMaxGRESPerUser, AssocGrpCPURunMinutesLimit, MaxNodePerAccount, QOSMinCpuNotSatisfied...
LIMIT = re.compile(
    r"(?P<whose>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<what>Cpu|CPU|Memory|Mem|Node|GRES|License|BB|Energy|Billing|Unknown|SubmitJobs?|Jobs|Wall(Duration)?)"
    r"(?P<time>RunMinutes|Minutes)?(Per(?P<of>Job|Node|User|Account))?(Limit|NotSatisfied)?"
)
# What is limited -> its name, whether there is much or many of it, and how to ask for another amount.
THINGS = {
    "cpu": ("CPUs", "many", "cluster.cpus_per_task=N"),
    "mem": ("memory", "much", "cluster.mem_gb=GB"),
    "node": ("nodes", "many", "nodes=N"),
    "gres": ("GPUs", "many", "nodes=N"),
    "license": ("licenses", "many", "cluster.additional_parameters.licenses=NAME:N"),
    "bb": ("buffer", "much", "cluster.additional_parameters.bb=..."),
    "energy": ("energy", "much", "nodes=N"),
    "billing": ("weight", "much", "nodes=N"),
    "unknown": ("units", "many", "nodes=N"),
    "submitjob": ("jobs in the queue", "many", ""),
    "jobs": ("running jobs", "many", ""),
    "wall": ("time", "much", TIME),
}
SAME = {"memory": "mem", "submitjobs": "submitjob", "wallduration": "wall"}


def _limit(word: str) -> Reason | None:
    found = LIMIT.fullmatch(word)
    if not found:
        return None
    what, kind, time, share = found["what"].lower(), found["kind"], found["time"], found["of"]
    thing, much, change = THINGS[SAME.get(what, what)]
    whose, table = ("QOS", "qos") if found["whose"] == "QOS" else ("account", "assoc")
    limits = f"`sacctmgr show {table}` has the limit"
    if kind == "Min":
        few = "little" if much == "much" else "few"
        return Reason(word, f"nothing: too {few} {thing}", YOU, f"its {whose} wants more of a job; {limits}", change)
    if kind == "Max" and (share in ("Job", "Node") or thing == "time"):
        if time:
            return Reason(word, "nothing: too much time", YOU, f"{thing} times hours are too much; {limits}", TIME)
        change = "tasks_per_node=N" if (thing, share) == ("GPUs", "Node") else change
        less = f"its {whose} gives a {(share or 'job').lower()} less; {limits}"
        return Reason(word, f"nothing: too {much} {thing}", YOU, less, change)
    if kind == "Grp" and (time == "Minutes" or thing == "time"):
        spent = f"those that it had are used up; ask for more, or wait until they count anew; {limits}"
        return Reason(word, f"hours for its {whose}", ADMIN, spent)
    others = f"others in its {whose}" if kind == "Grp" or share == "Account" else "your other jobs"
    have = f"all the {thing} that they may" + (", counted over the hours that they have left" if time else "")
    never = f"; a job that asks for more never starts; {limits}" if change else f"; {limits}"
    return Reason(word, others, NOBODY, f"they have {have}{never}")
