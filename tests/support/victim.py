"""One run that is killed again and again, and resumed."""

import signal


class Victim:
    """`overrides`: of a run with method.log_every=1. Kills come from inside a rank, right after a step."""

    def __init__(self, sslrun, watched, signalled, overrides, ranks):
        self._sslrun, self._watched, self._signalled = sslrun, watched, signalled
        self._launch = (*overrides, f"tasks_per_node={ranks}", f"runs={watched.runs}")
        self._lives = self._lost = 0

    def killed_after(self, step: int, *, whom: int | str) -> int:
        """The step of the checkpoint that stands after one more life, in which rank `whom`, or the `launcher`, was
        killed once `step` steps were done."""
        words = ("resume", self._watched.path) if self._lives else self._launch
        self._lives += 1
        who = {"whom": "launcher"} if whom == "launcher" else {"whom": "rank", "rank": whom}
        ended = self._signalled(*words, number=signal.SIGKILL, after=step, **who)
        assert self._watched.gone()
        if whom == "launcher":
            assert ended.code == -signal.SIGKILL
        else:  # the launcher lived to tell: of the death, not of what the other ranks met because of it
            assert ended.code == 4
            assert f"rank {whom}" in ended.complaint and "killed by SIGKILL" in ended.complaint
        shown = self._sslrun.show(self._watched.path)
        assert shown["state"] == "failed"
        assert max(row["step"] for row in self._watched.rows()) >= step
        self._lost += max(0, self._watched.step() - shown["step"])
        return shown["step"]

    def resumed_to_the_end(self) -> dict:
        self._sslrun("resume", self._watched.path)
        done = self._sslrun.show(self._watched.path)
        assert self._watched.events("finished")  # and all else that it said is read
        assert done["state"] == "done" and done["step"] == done["steps"]
        assert done["restarts"] == {"killed": self._lives}
        assert done["lost_steps"] == self._lost
        return done
