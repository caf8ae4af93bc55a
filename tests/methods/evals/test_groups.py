"""What is said of groups of similar features fits together."""

import pytest

from launcher.run.ledger import Ledger


def test_groups_of_low_entropy_are_those_in_the_first_quarter_of_the_density(evaluated):
    found = evaluated.scores("protocol=groups", "groups.groups=100")["groups"]
    assert found["low"] == pytest.approx(sum(found["density"][:5]), abs=1e-3)
    assert 0 < found["low"] < 1


def test_scores_are_on_the_board_of_the_evaluation_beside_what_the_sweep_varies(evaluated):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    row = {"sweep": "smog/entropy", "axis": "method", "at": "swav", "seed": 0, "metric": "groups.low"}
    Ledger(evaluated.run.path, 1, "submit").write("sweep", **row)
    asked = evaluated.asked("protocol=groups")
    scores = evaluated.serve(asked)["groups"]
    board = EventAccumulator(str(asked.path / "tensorboard"))
    board.Reload()
    (event,) = board.Scalars("groups/low")
    assert (event.step, event.value) == (12, pytest.approx(scores["low"]))
    said = {tag: HParamsPluginData() for tag in board.summary_metadata if tag.startswith("_hparams_/")}
    for tag, data in said.items():
        data.ParseFromString(board.summary_metadata[tag].plugin_data.content)
    assert said["_hparams_/session_start_info"].session_start_info.hparams["method"].string_value == "swav"
    assert [info.name.tag for info in said["_hparams_/experiment"].experiment.metric_infos] == ["groups/low"]
    assert "_hparams_/session_end_info" in said
