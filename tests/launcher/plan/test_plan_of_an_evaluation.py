"""What an evaluation takes whose protocols learn: steps, images a rank, disk, and the batch script to the letter.

    SSLRUN_REWRITE_GOLDEN=1 python -m pytest tests/launcher/plan/test_plan_of_an_evaluation.py

writes the script anew; read the difference before committing it.
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from launcher.compose import protocols
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import evaluation
from launcher.spec.runspec import freeze
from launcher.verbs import eval as verb

GOLDEN = Path(__file__).with_name("golden") / "evaluation"
PARAMETERS = 23_508_032  # of ResNet-50


@pytest.fixture(scope="module")
def training():
    words = ["method=smog", "cluster=generic", "nodes=1", "cluster.python=/opt/sslrun/bin/python", "runs=/runs"]
    return resolve(words, planning=True)[0]


def planned(training, *words, **where):
    settings, rest = protocols.taken(words, "resnet50")
    assert not rest
    return evaluation.make(dataclasses.replace(training, **where), settings)


def test_a_protocol_that_trains_says_its_steps_and_what_it_keeps(training):
    plan = planned(training, "protocol=segmentation,knn", nodes=2, tasks_per_node=4)
    assert (plan.nodes, plan.ranks, plan.steps) == ("2", 8, 0)
    assert plan.protocols == {
        "segmentation": {"images_a_step": 16, "images_a_rank": 2, "steps": 30_000},
        "knn": {"images_a_step": None, "images_a_rank": None, "steps": None},
    }
    assert plan.disk_gb == pytest.approx(2 * 3 * 4 * PARAMETERS / 1e9, abs=5e-4)  # weights, two slots, and once more
    assert planned(training, "protocol=knn").disk_gb == 0
    assert json.loads(json.dumps(plan.to_json()))["protocols"]["segmentation"]["steps"] == 30_000


def test_epochs_are_steps_where_the_number_of_images_is_known(training):
    words = "protocol=sgd,finetune,linear", "sgd.batch=100", "finetune.share=0.1", "linear.epochs=3"
    unknown = planned(training, *words).protocols
    assert {name: each["steps"] for name, each in unknown.items()} == {"sgd": None, "finetune": None, "linear": None}
    assert unknown["finetune"]["images_a_step"] == 256
    photos = resolve(["method=rotnet", "recipe=tiny", "eval_data=photos", "eval_data.images=6080"], planning=True)[0]
    known = evaluation.make(photos, protocols.taken(words, "resnet50")[0]).protocols
    steps = {name: each["steps"] for name, each in known.items()}
    assert steps == {"sgd": 180 * 60, "finetune": 20 * 2, "linear": 3 * 8}


def test_steps_are_those_of_the_images_that_are_learnt_from(tmp_path):
    (tmp_path / "few.txt").write_text("a.png")
    photos = resolve(["method=rotnet", "recipe=tiny", "eval_data=photos", "eval_data.images=6080"], planning=True)[0]

    def steps(*words, ranks=1):
        settings = protocols.taken(words, "resnet50")[0]
        spec = dataclasses.replace(photos, tasks_per_node=ranks)
        return [tuple(each.values()) for each in evaluation.make(spec, settings).protocols.values()]

    assert steps("protocol=finetune", ranks=3) == [(255, 85, 20 * 23)]
    assert steps("protocol=finetune", "finetune.batch=100000", "finetune.epochs=2") == [(6080, 6080, 2)]
    assert steps("protocol=finetune", "finetune.share=0.05", ranks=8) == [(256, 32, 20)]
    assert steps("protocol=finetune", "finetune.share=0.001", ranks=8), "there is one of each class at least"
    assert steps("protocol=sgd", "sgd.share=0.1") == [(608 // 8, None, 180 * 8)]
    assert steps("protocol=sgd", "sgd.share=0.1", "sgd.batch=512") == [(512, None, 180)]
    for name, images in (("sgd", (512, None, None)), ("finetune", (256, 256, None))):
        assert steps(f"protocol={name}", f"{name}.subset={tmp_path / 'few.txt'}") == [images]


def test_images_of_a_step_that_do_not_share_out_are_refused_with_the_ranks_that_do(training):
    words = "protocol=segmentation", "segmentation.batch=12"
    for ranks in (1, 2, 6):
        assert planned(training, *words, tasks_per_node=ranks).protocols["segmentation"]["images_a_rank"] == 12 // ranks
    for nodes, tasks in ((1, 8), (3, 8), (1, 24)):
        with pytest.raises(InputError) as caught:
            planned(training, *words, nodes=nodes, tasks_per_node=tasks)
        assert str(caught.value) == (
            f"segmentation.batch=12: 12 images a step do not share out to {nodes * tasks} ranks; "
            "use 1, 2, 3, 4, 6 or 12 ranks"
        )
    with pytest.raises(InputError, match="do not share out to 5 ranks"):  # a number that it may get
        planned(training, *words, nodes=6, least_nodes=4, tasks_per_node=1)
    with pytest.raises(InputError, match=r"^finetune\.batch=8: .* to 16 ranks; use fewer ranks"):
        planned(training, "protocol=finetune", "finetune.batch=8", tasks_per_node=16)


def test_ranks_are_told_earlier_where_a_network_is_kept(training):
    slow = freeze(training.cluster_but(disk_gb_s=0.01))
    found = [planned(training, f"protocol={name}", cluster=slow).signal_delay_s for name in ("knn", "segmentation")]
    assert found[0] == 60 and found[1] == pytest.approx(30 + 3 * 24 * PARAMETERS / 1e9 / 0.01, abs=1)


def test_the_script_is_the_golden_one(training):
    settings, _ = protocols.taken(["protocol=segmentation"], "resnet50")
    spec, folder = dataclasses.replace(training, nodes=2), Path("/runs/smog-1/evals/segmentation-1")
    script = verb._planned("smog-1/evals/segmentation-1", folder, spec, settings)["sbatch"]
    file = GOLDEN / "segmentation-2nodes.sh"
    if os.environ.get("SSLRUN_REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(script)
    assert script == file.read_text()
    assert "#SBATCH --job-name=smog-1-evals-segmentation-1\n" in script


def test_a_person_reads_it_in_words(training):
    takes = planned(training, "protocol=segmentation,sgd,knn", nodes=2, tasks_per_node=1).protocols
    assert [verb._in_words(*each) for each in takes.items()] == [
        "segmentation: 30,000 steps of 16 images, 8 a rank", "sgd: steps of 512 images", "knn",
    ]  # fmt: skip
