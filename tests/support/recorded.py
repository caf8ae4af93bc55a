"""What a real Slurm (22.05) answered, and a stand-in for its programs that says it again.

The texts are from clusters of tests/slurm/cluster.py, shortened where it says so: users, folders and hosts have got
other names. A stand-in, because starting a cluster takes seconds and bringing about most of these answers some more;
tests/slurm asks the real one, so that what is read here is what it says. What slurm/commands.py does with an answer is
not replaced.
"""

import itertools
import re
import subprocess
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.slurm import client, commands


@dataclass(frozen=True)
class Refused:
    """A program that ended with an exit code and these lines on stderr."""

    said: str
    code: int = 1


Said = str | Refused | Callable[[list[str]], "str | Refused"]


class Replay:
    """`says("squeue", TEXT)`: that is what every command which begins so is answered from now on; of several answers
    one after the other, the last of them always. A callable is given the command. What nobody recorded fails."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.inherited: list[tuple[int, ...]] = []  # descriptors that each of them was given
        self.queued: list[str] = []  # rows of squeue, of what `limited` has let in
        self._answers: dict[str, list[Said]] = {}
        self.says("scontrol ping", "Slurmctld(primary) at login is UP\n")

    def says(self, command: str, *answers: Said) -> None:
        self._answers[command] = list(answers)

    def cluster(self, nodes: str = "") -> None:
        """Be the cluster of PARTITIONS and NODES; `nodes` in the place of those."""
        self.says("scontrol show partition -o", PARTITIONS)
        self.says("scontrol show config", CONFIG)
        self.says("sinfo --noheader --Node --format=", table(nodes or NODES))

    def commands(self, beginning: str) -> list[list[str]]:
        """Those that were asked so far."""
        return [words for words in self.asked if " ".join(words).startswith(beginning)]

    def run(self, command: list[str], **options) -> subprocess.CompletedProcess:
        """In the place of subprocess.run."""
        words = [str(word) for word in command]
        line = " ".join(words)
        known = max((known for known in self._answers if line.startswith(known)), key=len, default=None)
        assert known, f"nobody recorded what Slurm says to {line!r}"
        if known != "scontrol ping":
            self.asked.append(words)
            self.inherited.append(tuple(options.get("pass_fds", ())))
        answers = self._answers[known]
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        said = said(words) if callable(said) else said
        code, out, err = (said.code, "", said.said) if isinstance(said, Refused) else (0, said, "")
        if "encoding" not in options:
            return subprocess.CompletedProcess(words, code, out.encode(), err.encode())
        return subprocess.CompletedProcess(words, code, out, err)

    def start(self, command: list[str], **_) -> types.SimpleNamespace:
        """In the place of subprocess.Popen: it has ended at once."""
        ended = self.run(command)
        return types.SimpleNamespace(wait=lambda timeout=None: ended.returncode)


def replay(monkeypatch) -> Replay:
    """Slurm's programs are one for as long as a test lasts, whether they are on this machine or not."""
    replay = Replay()
    programs = types.SimpleNamespace(**vars(subprocess))
    programs.run = replay.run
    programs.Popen = replay.start
    monkeypatch.setattr(client, "subprocess", programs)
    monkeypatch.setattr(client, "installed", lambda *_: True)
    return replay


def table(text: str) -> str:
    """As squeue and sinfo write it for slurm/commands.py, whose separators are no characters for the eye."""
    return "".join(commands.RECORD + line.replace("|", commands.FIELD) for line in text.splitlines(keepends=True))


# `scontrol show partition -o` of a cluster with two nodes of 2 GPUs, three with GPUs of a kind, and one without any.
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=01:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-2] PriorityJobFactor=1 "
    "PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP "
    "TotalCPUs=8 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED "
    "MaxMemPerNode=UNLIMITED TRES=cpu=8,mem=32G,node=2,billing=8\n"
    "PartitionName=short AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=00:10:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-2] PriorityJobFactor=1 "
    "PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP "
    "TotalCPUs=8 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED "
    "MaxMemPerNode=UNLIMITED TRES=cpu=8,mem=32G,node=2,billing=8\n"
    "PartitionName=single AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=1 MaxTime=01:00:00 "
    "MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-2] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO "
    "ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=8 TotalNodes=2 "
    "SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED "
    "TRES=cpu=8,mem=32G,node=2,billing=8\n"
    "PartitionName=physics AllowGroups=ALL AllowAccounts=physics,biology AllowQos=ALL AllocNodes=ALL "
    "Default=NO QoS=N/A DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO "
    "MaxNodes=UNLIMITED MaxTime=01:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-2] "
    "PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE "
    "PreemptMode=REQUEUE State=UP TotalCPUs=8 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) "
    "DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=8,mem=32G,node=2,billing=8\n"
    "PartitionName=closed AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=01:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-2] PriorityJobFactor=1 "
    "PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=DRAIN "
    "TotalCPUs=8 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED "
    "MaxMemPerNode=UNLIMITED TRES=cpu=8,mem=32G,node=2,billing=8\n"
    "PartitionName=mixed AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=5 MaxTime=UNLIMITED "
    "MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=c1,g[1-3],n[1-2] PriorityJobFactor=1 PriorityTier=1 "
    "RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=72 "
    "TotalNodes=6 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED "
    "TRES=cpu=72,mem=288G,node=6,billing=72\n"
    "PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=2-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=c1 PriorityJobFactor=1 PriorityTier=1 "
    "RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=32 "
    "TotalNodes=1 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED "
    "TRES=cpu=32,mem=128G,node=1,billing=32\n"
)

# `scontrol show config`, shortened.
CONFIG = """\
Configuration data as of 2026-11-28T18:20:07
AccountingStorageTRES   = cpu,mem,energy,node,billing,fs/disk,vmem,pages
AccountingStorageType   = accounting_storage/none
ClusterName             = test
JobRequeue              = 1
KillWait                = 5 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
SLURM_VERSION           = 22.05.8
"""

# `sinfo --noheader --Node --format=...` of it, where | is a separator.
NODES = """\
c1|32|131072|(null)|idle|mixed|none
c1|32|131072|(null)|idle|cpu|none
g1|16|65536|gpu:a100:8|idle|mixed|none
g2|8|32768|gpu:a100:4|idle|mixed|none
g3|8|32768|gpu:a100:4|idle|mixed|none
n1|4|16384|gpu:2|idle|main|none
n1|4|16384|gpu:2|idle|short|none
n1|4|16384|gpu:2|idle|single|none
n1|4|16384|gpu:2|idle|physics|none
n1|4|16384|gpu:2|idle|closed|none
n1|4|16384|gpu:2|idle|mixed|none
n2|4|16384|gpu:2|idle|main|none
n2|4|16384|gpu:2|idle|short|none
n2|4|16384|gpu:2|idle|single|none
n2|4|16384|gpu:2|idle|physics|none
n2|4|16384|gpu:2|idle|closed|none
n2|4|16384|gpu:2|idle|mixed|none
"""

# The same while jobs run; c1 was set down, g3 and n2 drained, and the daemon of g2 killed.
NODES_AT_WORK = """\
c1|32|131072|(null)|down|mixed|lost
c1|32|131072|(null)|down|cpu|lost
g1|16|65536|gpu:a100:8|allocated|mixed|none
g2|8|32768|gpu:a100:4|idle*|mixed|none
g3|8|32768|gpu:a100:4|drained|mixed|fan
n1|4|16384|gpu:2|mixed|main|none
n1|4|16384|gpu:2|mixed|short|none
n1|4|16384|gpu:2|mixed|single|none
n1|4|16384|gpu:2|mixed|physics|none
n1|4|16384|gpu:2|mixed|closed|none
n1|4|16384|gpu:2|mixed|mixed|none
n2|4|16384|gpu:2|drained|main|a fan is broken, see ticket 7
n2|4|16384|gpu:2|drained|short|a fan is broken, see ticket 7
n2|4|16384|gpu:2|drained|single|a fan is broken, see ticket 7
n2|4|16384|gpu:2|drained|physics|a fan is broken, see ticket 7
n2|4|16384|gpu:2|drained|closed|a fan is broken, see ticket 7
n2|4|16384|gpu:2|drained|mixed|a fan is broken, see ticket 7
"""

# `scontrol show job -o` of a script that ended with `exit 3`,
FAILED_6 = (
    "JobId=6 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=4294901756 Nice=0 "
    "Account=(null) QOS=(null) JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=0 "
    "BatchFlag=1 Reboot=0 ExitCode=3:0 RunTime=00:00:00 TimeLimit=01:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-28T18:23:13 EligibleTime=2026-11-28T18:23:13 AccrueTime=2026-11-28T18:23:13 "
    "StartTime=2026-11-28T18:23:13 EndTime=2026-11-28T18:23:13 Deadline=N/A SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-28T18:23:13 Scheduler=Main Partition=main AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList=n1 BatchHost=n1 NumNodes=1 NumCPUs=1 NumTasks=1 "
    "CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,mem=2G,node=1,billing=1 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* "
    "CoreSpec=* MinCPUsNode=1 MinMemoryCPU=2G MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 "
    "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=/home/me/runs/r/submit/s.sh "
    "WorkDir=/home/me Comment=sslrun:token7  StdErr=/home/me/runs/r/submit/slurm-6.log StdIn=/dev/null "
    "StdOut=/home/me/runs/r/submit/slurm-6.log Power= \n"
)

# of one whose first node could not open the log: its folder was hidden from it,
UNOPENED_1 = (
    "JobId=1 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=4294901759 Nice=0 "
    "Account=(null) QOS=(null) JobState=FAILED Reason=JobLaunchFailure Dependency=(null) Requeue=1 Restarts=0 "
    "BatchFlag=1 Reboot=0 ExitCode=0:53 RunTime=00:00:00 TimeLimit=01:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-28T18:30:28 EligibleTime=2026-11-28T18:30:28 AccrueTime=2026-11-28T18:30:28 "
    "StartTime=2026-11-28T18:30:29 EndTime=2026-11-28T18:30:29 Deadline=N/A SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-28T18:30:29 Scheduler=Backfill Partition=main AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=2 NumTasks=2 "
    "CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=4G,node=2,billing=2 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* "
    "CoreSpec=* MinCPUsNode=1 MinMemoryCPU=2G MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 "
    "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=/home/me/runs/r/submit/s.sh "
    "WorkDir=/home/me Comment=sslrun:token7  StdErr=/home/me/runs/r/submit/slurm-1.log StdIn=/dev/null "
    "StdOut=/home/me/runs/r/submit/slurm-1.log Power= \n"
)

# of one that was cancelled while it waited,
CANCELLED_2 = (
    "JobId=2 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=0 Nice=0 "
    "Account=(null) QOS=(null) JobState=CANCELLED Reason=JobHeldUser Dependency=(null) Requeue=1 Restarts=0 "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=01:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-28T18:23:12 EligibleTime=Unknown AccrueTime=Unknown StartTime=2026-11-28T18:23:12 "
    "EndTime=2026-11-28T18:23:12 Deadline=N/A SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-28T18:23:12 Scheduler=Main Partition=main AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList= NumNodes=1 NumCPUs=1 NumTasks=N/A CPUs/Task=1 "
    "ReqB:S:C:T=0:0:*:* TRES=cpu=1,mem=2G,node=1,billing=1 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* "
    "MinCPUsNode=1 MinMemoryCPU=2G MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 OverSubscribe=OK "
    "Contiguous=0 Licenses=(null) Network=(null) Command=/home/me/runs/r/submit/s.sh WorkDir=/home/me "
    "Comment=sslrun:token7  StdErr=/home/me/runs/r/submit/slurm-2.log StdIn=/dev/null "
    "StdOut=/home/me/runs/r/submit/slurm-2.log Power= \n"
)

# and of one that waits for its second start.
REQUEUED_7 = (
    "JobId=7 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=4294901755 Nice=0 "
    "Account=(null) QOS=(null) JobState=PENDING Reason=BeginTime Dependency=(null) Requeue=1 Restarts=1 "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=01:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-28T18:23:17 EligibleTime=2026-11-28T18:23:23 AccrueTime=2026-11-28T18:23:23 "
    "StartTime=Unknown EndTime=Unknown Deadline=N/A SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-28T18:23:14 Scheduler=Main Partition=main AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList= NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 "
    "ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=4G,node=2,billing=2 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* "
    "MinCPUsNode=1 MinMemoryCPU=2G MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 OverSubscribe=OK "
    "Contiguous=0 Licenses=(null) Network=(null) Command=/home/me/runs/r/submit/s.sh WorkDir=/home/me "
    "Comment=sslrun:token7  StdErr=/home/me/runs/r/submit/slurm-7.log StdIn=/dev/null "
    "StdOut=/home/me/runs/r/submit/slurm-7.log Power= \n"
)

# and of the running one of JOBS, once it was suspended.
SUSPENDED_4 = (
    "JobId=4 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=0 Nice=0 Account=(null) "
    "QOS=(null) JobState=SUSPENDED Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 "
    "ExitCode=0:0 RunTime=00:00:02 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=2026-11-28T18:23:11 "
    "EligibleTime=2026-11-28T18:23:11 AccrueTime=2026-11-28T18:23:11 StartTime=2026-11-28T18:23:12 "
    "EndTime=2026-11-28T19:23:12 Deadline=N/A SuspendTime=2026-11-28T18:23:14 SecsPreSuspend=2 "
    "LastSchedEval=2026-11-28T18:23:12 Scheduler=Backfill Partition=main AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 "
    "Command=(null) WorkDir=/home/me Comment=sslrun:token7  Power= \n"
)

# One that runs on two nodes, in a partition whose jobs others may preempt,
RUNNING_7 = (
    "JobId=7 JobName=rotnet-tiny-1 UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=4294901759 Nice=0 "
    "Account=(null) QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=0 "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:05 TimeLimit=00:10:00 TimeMin=N/A "
    "SubmitTime=2026-11-30T02:00:34 EligibleTime=2026-11-30T02:00:34 AccrueTime=2026-11-30T02:00:34 "
    "StartTime=2026-11-30T02:00:35 EndTime=2026-11-30T02:10:35 Deadline=N/A "
    "PreemptEligibleTime=2026-11-30T02:00:35 PreemptTime=None SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-30T02:00:35 Scheduler=Backfill Partition=low AllocNode:Sid=login:4711 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=2 NumTasks=2 "
    "CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=4G,node=2,billing=2 Socks/Node=* NtasksPerN:B:S:C=1:0:*:* "
    "CoreSpec=* MinCPUsNode=1 MinMemoryCPU=2G MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 "
    "OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=/home/me/runs/r/submit/s.sh "
    "WorkDir=/home/me Comment=sslrun:token7  StdErr=/home/me/runs/r/submit/slurm-7.log StdIn=/dev/null "
    "StdOut=/home/me/runs/r/submit/slurm-7.log Power= \n"
)

# and `squeue --steps --noheader --jobs=7 --format=...` of it, where | is a separator; of a job without steps: nothing.
STEPS_7 = """\
7.0|start1
7.1|understudy
7.batch|batch
"""

# `squeue --noheader --array --user=... --format=...`: an array of three, a held job and a running one.
JOBS = """\
3_1|3|PENDING|JobArrayTaskLimit|N/A||1:00:00|main|rotnet-tiny-1|sslrun:token7
3_2|3|PENDING|JobArrayTaskLimit|N/A||1:00:00|main|rotnet-tiny-1|sslrun:token7
2|2|PENDING|JobHeldUser|N/A||1:00:00|main|rotnet-tiny-1|sslrun:token7
3_0|5|RUNNING|None|2026-11-28T18:23:12|n1|1:00:00|main|rotnet-tiny-1|sslrun:token7
4|4|RUNNING|None|2026-11-28T18:23:12|n[1-2]|1:00:00|main|rotnet-tiny-1|sslrun:token7
"""

# On stderr of `scontrol show job`, of `sacct`, and of `sbatch --test-only` and `sbatch` with options that cannot be.
FORGOTTEN = Refused("slurm_load_jobs error: Invalid job id specified\n")
NO_ACCOUNTING = Refused("Slurm accounting storage is disabled\n")
NOT_AVAILABLE = Refused("allocation failure: Requested node configuration is not available\n")
NO_FEATURE = Refused("allocation failure: Invalid feature specification\n")
SUBMISSION_FAILED = Refused("sbatch: error: Batch job submission failed: Invalid feature specification\n")

# What sacctmgr (22.05, with slurmdbd and MariaDB) answers where jobs of the QOS `high` preempt those of `normal` and
# `mid`: `--parsable2 --noheader show qos format=name,gracetime,preemptmode,preempt`,
QOS = """\
normal|00:01:30|cluster|
high|00:00:00|cluster|mid,normal
mid|00:00:30|cancel|
partq|00:00:00|cluster|
"""

# and `show user NAME withassoc format=defaultaccount,cluster,account,partition,defaultqos,qos`.
ASSOCIATIONS = """\
root|test|lab||normal|high,mid,normal,partq
root|test|root||normal|high,mid,normal,partq
"""

# As sbatch (22.05, with slurmdbd) refuses a job, or an array as a whole, for the number of jobs in the queue: of the
# account's user, of the account, of a QOS in all, of its users, and of its accounts.
LIMITS = (
    "AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "QOSGrpSubmitJobsLimit", "QOSMaxSubmitJobPerUserLimit",
    "MaxSubmitJobsPerAccount",
)  # fmt: skip


def too_many(limit: str, *, tested: bool = False) -> Refused:
    """tested: by `sbatch --test-only`."""
    policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    what = "allocation failure" if tested else "sbatch: error: Batch job submission failed"
    return Refused(f"sbatch: error: {limit}\n{what}: {policy}\n")


def limited(slurm: Replay, room: int, limit: str, *, job: int = 7, of: str = "") -> None:
    """Let its queue take so many more jobs, from the number `job` on; only those of partition `of`, where given, count.
    What it has taken before, and takes now, waits in it."""
    ids = itertools.count(job)
    counted = 0

    def sbatch(command: list[str]) -> str | Refused:
        nonlocal counted
        script = Path(command[-1]).read_text()
        given = [*re.findall(r"#SBATCH --array=0-(\d+)", script), *re.findall(r"--array=0-(\d+)", " ".join(command))]
        tasks = int(given[-1]) + 1 if given else 1
        counts = not of or f"--partition={of}\n" in script
        if counts and counted + tasks > room:
            return too_many(limit, tested="--test-only" in command)
        if "--test-only" in command:
            return ""
        counted += tasks * counts
        comment = next(word.removeprefix("--comment=") for word in command if word.startswith("--comment="))
        id = str(next(ids))
        names = [f"{id}_{index}" if given else id for index in range(tasks)]
        slurm.queued += [f"{name}|{id}|PENDING|Priority|N/A||1:00:00|main|name|{comment}\n" for name in names]
        return f"{id}\n"

    slurm.says("sbatch --parsable", sbatch)
    slurm.says("sbatch --test-only", sbatch)
    slurm.says("squeue", lambda _: table("".join(slurm.queued)))
