"""Every reason for which the Slurm that is installed lets a job wait has words, and people are shown them."""

import ctypes
import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher.report.listing import WIDEST
from launcher.slurm import reasons

HEADER = Path("/usr/include/slurm/slurm.h")
PAGE = Path("/usr/share/man/man1/squeue.1.gz")
LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture(scope="module")
def words() -> list[str]:
    """Slurm's word for each number, as its own programs make it."""
    linked = subprocess.run(["ldd", shutil.which("squeue")], capture_output=True, text=True).stdout
    library = ctypes.CDLL(re.search(r"=> (\S+/libslurmfull\S*)", linked)[1])
    names = ("slurm_job_state_reason_string", "slurm_job_reason_string", "job_reason_string")
    word = next(getattr(library, name) for name in names if hasattr(library, name))
    word.restype = ctypes.c_char_p
    return [found for number in range(300) if (found := word(number).decode()) not in (str(number), "InvaildReason")]


def test_every_word_of_slurms_own_is_known(words):
    assert len(words) > 150 and "Priority" in words
    for word in words:
        assert 0 < len(reasons.of(word).waits_for) <= WIDEST, word


def test_there_are_as_many_as_the_header_has(words):
    if not HEADER.exists():
        pytest.skip(f"Slurm is not on this machine: no {HEADER}; apt-get install libslurm-dev (Debian, Ubuntu)")
    listed = re.search(r"enum job_state_reason \{(.*?)\}", HEADER.read_text(), re.DOTALL)[1]
    numbers = re.findall(r"\b(?:WAIT|FAIL)_[A-Z_]+\b", re.sub(r"/\*.*?\*/", "", listed, flags=re.DOTALL))
    assert len(words) == len(numbers)


def test_every_word_of_the_manual_is_known():
    if not PAGE.exists():
        pytest.skip(f"Slurm is not on this machine: no {PAGE}")
    page = gzip.decompress(PAGE.read_bytes()).decode()
    section = re.search(r'^\.SH "?JOB REASON CODES(.*?)^\.SH', page, re.MULTILINE | re.DOTALL)[1]
    found = [word.replace("*", "Cpu") for word in re.findall(r"^\\fB([\w*]+)\\fR", section, re.MULTILINE)]
    assert len(found) > 30 and [word for word in found if not reasons.of(word).waits_for] == []


def test_status_show_and_launch_say_who_can_help(cluster, slurm_sslrun, config_dir, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    words = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")
    words += ("--config-dir", config_dir(cluster), f"runs={tmp_path}", LATER)
    launched = sslrun(*words, "--json").json
    job, run = launched["job"], launched["id"]
    sslrun.environment["COLUMNS"] = "80"

    def holds(how: str, word: str) -> str:
        """What `status` says once the job is held so."""
        cluster.run("scontrol", how, job)
        until(lambda: sslrun("status", f"runs={tmp_path}", "--json").json[0]["why_pending"] == word)
        assert sslrun.show(tmp_path / run)["why_pending"] == word
        text = sslrun("status", f"runs={tmp_path}").out
        assert all(len(line) <= 80 for line in text.splitlines()[:2])
        return text

    text = holds("uhold", "JobHeldUser")
    mine = f"you: it is held (JobHeldUser); you can help: `scontrol release {job}`"
    assert " you: it is held " in text and f"\n{run}: waits for {mine}\n" in text
    assert f"waits_for     {mine}\n" in (shown := sslrun("show", tmp_path / run).out) and "message" not in shown
    assert "\nyou: it is held (JobHeldUser)\n" in sslrun("report", tmp_path / run).out
    assert mine in sslrun(*words).err  # it is joined
    text = holds("hold", "JobHeldAdmin")  # this user is one
    theirs = f"an administrator can help: ask one why, and for `scontrol release {job}`"
    assert f"an admin: it is held (JobHeldAdmin); {theirs}" in text
