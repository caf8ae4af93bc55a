"""What a sweep varies is in TensorBoard's HPARAMS, beside the score that it is about."""

import pytest


@pytest.fixture
def told(ledgers):
    """`told(*events, done=True)`: (hyperparameters, tags of the scores, whether it is over) of a run that belongs to
    these sweeps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    from launcher.runtime.metrics import Reporter

    def run(*events: dict, done: bool = True):
        found = ledgers.create("method=rotnet", "recipe=tiny")
        ledgers.start(found)
        for event in events:
            ledgers.say(found, "sweep", **event)
        reporter = Reporter(found, main=True, generation=1)
        reporter.start(purge_step=0)
        reporter.log(10, **{"knn/trained": 40.0, "knn/rank": 3.0})
        reporter.progress(force=True, stage="done" if done else "stopped")
        reporter.close()
        board = EventAccumulator(str(found.path / "tensorboard"))
        board.Reload()
        said = {tag: HParamsPluginData() for tag in board.summary_metadata if tag.startswith("_hparams_/")}
        for tag, data in said.items():
            data.ParseFromString(board.summary_metadata[tag].plugin_data.content)
        begin = said["_hparams_/session_start_info"].session_start_info.hparams if said else {}
        values = {name: value.number_value or value.string_value for name, value in begin.items()}
        tags = [info.name.tag for data in said.values() for info in data.experiment.metric_infos]
        assert set(tags) <= {*board.Tags()["scalars"]}
        return values, tags, "_hparams_/session_end_info" in said

    return run


def test_of_a_papers_table(told):
    row = {"sweep": "smog/groups", "scale": "demo", "axis": "groups", "value": 300, "at": 6, "seed": 1}
    assert told({**row, "metric": "knn.trained"}) == ({"groups": 6.0, "seed": 1.0}, ["knn/trained"], True)


def test_of_several_and_of_a_multirun_of_ones_own(told):
    row = {"sweep": "dino/teachers", "axis": "teacher", "at": "momentum", "seed": 1, "metric": "knn.rank"}
    values, tags, over = told(row, {"sweep": "rotnet-tiny-sweep-1", "values": {"method.lr": "0.01"}}, done=False)
    assert values == {"teacher": "momentum", "seed": 1.0, "method.lr": 0.01}
    assert sorted(tags) == ["knn/rank", "knn/trained"]
    assert not over  # it may go on


def test_a_run_of_no_sweep_has_none(told):
    assert told() == ({}, [], False)
