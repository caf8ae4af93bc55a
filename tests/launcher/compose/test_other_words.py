"""Who types what another program would understand gets the line to type here."""

import shlex

import pytest

from launcher import cli
from launcher.compose import other_words
from launcher.spec import registry

COMMANDS = {
    "train method=dino": "sslrun method=dino",
    "run method=swav nodes=8": "sslrun method=swav nodes=8",
    "launch dino": "sslrun method=dino",
    "submit deepercluster nodes=8": "sslrun method=deepercluster nodes=8",
    "train": "sslrun method=NAME",
    "dino": "sslrun method=dino",
    "dino nodes=4": "sslrun method=dino nodes=4",
    "method dino": "sslrun method=dino",
    "--method dino": "sslrun method=dino",
    "--method=dino --nodes 8 --json": "sslrun method=dino nodes=8 --json",
    "method=dino --nodes 8": "sslrun method=dino nodes=8",
    "train dino --lr 0.3": "sslrun method=dino method.lr=0.3",
    "train --method dino --batch-size=64 --num_nodes 2": "sslrun method=dino method.global_batch=64 nodes=2",
    "train dino --root y --partition gpu": "sslrun method=dino data.path=y cluster.partition=gpu",
    "--tasks-per-node 2 method=dino": "sslrun tasks_per_node=2 method=dino",
    "train 'data.path=my images' dino": "sslrun 'data.path=my images' method=dino",
    "help": "sslrun --help",
    "help status": "sslrun status --help",
    "ls": "sslrun status",
    "ps": "sslrun status",
    "squeue": "sslrun status",
    "stop RUN": "sslrun cancel RUN",
    "kill RUN": "sslrun cancel RUN",
    "tail RUN -f": "sslrun logs RUN -f",
    "kill -9 RUN": "sslrun cancel RUN",
    "ls -la --json": "sslrun status --json",
    "evaluate RUN protocol=knn": "sslrun eval RUN protocol=knn",
    "restart RUN": "sslrun resume RUN",
    "info RUN": "sslrun show RUN",
    "compare sweep=smog/groups": "sslrun report sweep=smog/groups",
}
KEYS = {
    "method.learning_rate": "did you mean method.lr?",
    "method.batch_size": "did you mean method.global_batch?",
    "method.arch": "did you mean method.backbone?",
    "method.wd": "did you mean method.weight_decay?",
    "method.num_workers": "did you mean method.workers?",
    "data.root": "did you mean data.path?",
    "gpus": "did you mean tasks_per_node?",
    "num_nodes": "did you mean nodes?",
    "output_dir": "did you mean runs?",
    "partition": "did you mean cluster.partition?",
    "lr": "did you mean method.lr?",
    "batch_size": "did you mean method.global_batch?",
    "resume": "the same line again goes on with a run that there is, and so does `sslrun resume RUN`",
    "device": "GPUs are found and used by themselves; tasks_per_node=N takes N of them",
    "ddp": "ranks are started and find one another by themselves; nodes=N and tasks_per_node=N say how many",
}


def complaint(capsys, *typed):
    assert cli._ended([*typed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(("typed", "meant"), COMMANDS.items())
def test_a_command_of_another_program_gets_the_line_to_type(capsys, typed, meant):
    assert complaint(capsys, *shlex.split(typed)).endswith(f"; type `{meant}`")


@pytest.mark.parametrize(
    "typed",
    [
        "frobnicate", "frobnicate this", "prun RUN", "run this", "--method", "train --lr --epochs 5", "dino --frob=3",
        "train --method dino --verbose",
    ],
)  # fmt: skip
def test_what_nobody_understands_gets_the_verbs_and_none_that_deletes(capsys, typed):
    line = complaint(capsys, *shlex.split(typed))
    assert "type `" not in line and "did you mean prune" not in line


def test_no_other_word_is_a_verb_or_leads_to_one_that_deletes():
    known = {*cli.VERBS}
    assert not known & {*other_words.VERBS, *other_words.LAUNCH, *registry.names()}
    assert {*other_words.VERBS.values()} <= known - {*cli.DELETING}


@pytest.mark.parametrize(("key", "said"), KEYS.items())
def test_a_key_of_another_program_gets_ours(capsys, key, said):
    line = complaint(capsys, "plan", "method=dino", "recipe=tiny", f"{key}=1")
    assert line == f"sslrun: {key}=1: there is no such key; {said}"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("data={tmp}", "data={tmp}: that is a folder, and no data set; type data=image_folder \"data.path='{tmp}'\""),
        ("data.path={tmp}", "data.path={tmp}: data=photos has no path; add data=image_folder"),
        (
            "data.labels=none",
            "data.labels=none: data=photos has no labels; it has colour, held_out, images, max_broken, patch",
        ),
    ],
)
def test_a_folder_of_ones_own_gets_the_line_to_type(capsys, tmp_path, typed, said):
    line = complaint(capsys, "plan", "method=dino", "recipe=tiny", typed.format(tmp=tmp_path))
    assert line == f"sslrun: {said.format(tmp=tmp_path)}"
