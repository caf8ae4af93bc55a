"""Slurm signals every process of a job. Data-loader workers leave it to their rank, which needs them for its last step;
they end with it."""

import contextlib
import os
import signal
from pathlib import Path

WORKERS = 2  # a rank


def status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def stands(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it has ended
        return status(pid, "State") == "T"
    return False


def loads(pid: int) -> bool:
    """Whether it is a data-loader worker, and not what watches over a rank."""
    return status(pid, "Name") != "sslrun-watchdog"


def ignores(pid: int, number: int) -> bool:
    return bool(int(status(pid, "SigIgn"), 16) >> (number - 1) & 1)


def test_told_with_its_workers_it_stops_once_and_goes_on_exactly(sslrun, watched, until, undisturbed, small):
    launch = (*small("rotnet"), "tasks_per_node=2", f"method.workers={WORKERS}", f"runs={watched.runs}")
    # They wait while they are looked at, however long that takes: the first, and who votes with it.
    launcher = sslrun.signalling(number=signal.SIGSTOP, whom="rank", after=5).start(*launch)
    until(lambda: launcher.poll() is not None or any(map(stands, watched.processes())))
    ranks = [pid for pid in watched.processes() if int(status(pid, "PPid")) == launcher.pid]
    members = watched.processes()
    workers = [pid for pid in members if int(status(pid, "PPid")) in ranks and loads(pid)]
    assert (len(ranks), len(workers)) == (2, 2 * WORKERS)
    assert {os.getpgid(pid) for pid in members} == {*ranks}  # a group is a rank with its workers
    for number in (signal.SIGTERM, signal.SIGUSR2):
        assert all(ignores(pid, number) for pid in workers)
        assert not any(ignores(pid, number) for pid in ranks)
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2):
        for rank in ranks:
            os.killpg(rank, number)

    ended = sslrun.finish(launcher)
    assert "Traceback" not in ended.out + ended.err
    assert watched.gone()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    stopped = sslrun.show(watched.path)
    assert stopped["state"] == "stopped"
    assert len(watched.events("stopped_at_safe_point")) == 2  # each rank once
    assert [e["step"] for e in watched.events("checkpoint")].count(stopped["step"]) == 1
    assert stopped["step"] == watched.step()  # where it stopped is where it saved
    assert not watched.events("error")
    logs = "".join(log.read_text() for log in (watched.path / "logs").iterdir())
    assert "Traceback" not in logs
    assert "DataLoader" not in logs

    sslrun("resume", watched.path)
    done = sslrun.show(watched.path)
    assert (done["state"], done["lost_steps"]) == ("done", 0)
    assert done["state_digest"] == sslrun.show(undisturbed(2, small("rotnet")))["state_digest"]
