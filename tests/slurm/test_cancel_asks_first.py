"""`sslrun cancel` typed on a terminal asks before it takes a job out of the queue."""

import os
import pty
import sys
from pathlib import Path

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "--json")


def typed(forge, sslrun, words, answer):
    """(exit code, what was asked) of a command on a terminal where `answer` is typed."""
    parent, child = pty.openpty()
    command = [Path(sys.executable).with_name("sslrun"), *map(str, words)]
    process = forge.start(command, stdin=child, stdout=child, stderr=child, env=sslrun.environment)
    os.close(child)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(parent, 1000)
    os.write(parent, f"{answer}\n".encode())
    code = process.wait()
    os.close(parent)
    return code, said.decode()


def test_nothing_is_cancelled_without_a_yes(cluster, forge, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    where = f"runs={tmp_path / 'runs'}"
    answer = sslrun(*RUN, "--config-dir", folder, where).json

    def queued():
        return cluster.run("squeue", "--noheader", "--format=%i").stdout.split()

    for word, code, left in (("", 130, [answer["job"]]), ("n", 130, [answer["job"]]), ("y", 0, [])):
        ended, asked = typed(forge, sslrun, ("cancel", answer["id"], where), word)
        assert (ended, queued()) == (code, left)
        assert f"cancel {answer['id']} (pending)?" in asked
    assert sslrun.show(answer["path"])["state"] == "cancelled"
