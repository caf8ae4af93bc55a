"""progress.json is replaced behind the training, which no slow disk delays; a last word is waited for."""

import json
import threading

from launcher.run import files
from launcher.run.folder import RunDir
from launcher.runtime import metrics
from launcher.runtime.metrics import Reporter


def test_a_slow_disk_is_waited_for_at_the_last_word_alone(tmp_path, monkeypatch):
    room, asked, threads = threading.Event(), threading.Event(), []

    def slow(path, row, *, durable):
        threads.append(threading.current_thread())
        asked.set()
        assert room.wait(60)
        files.write_json(path, row, durable=durable)

    monkeypatch.setattr(metrics, "write_json", slow)
    monkeypatch.setattr(metrics, "PROGRESS_SECONDS", -1.0)  # every call is late enough
    reporter = Reporter(RunDir(tmp_path), main=True, generation=1)
    reporter.start(purge_step=0)
    for step in range(3):  # nobody would come behind the first one if it were waited for
        reporter.progress(step=step)
    assert asked.wait(60) and not (tmp_path / "progress.json").exists()
    room.set()
    reporter.progress(force=True, stage="stopped")
    assert json.loads((tmp_path / "progress.json").read_text()) == {"generation": 1, "step": 2, "stage": "stopped"}
    reporter.close()
    assert len(threads) == 2 and threading.main_thread() not in threads  # what came between is in the last one
