"""A drill is worth something only if it fails where a run does not resume exactly."""

import pytest

# RotNet, but for one thing: what it computes depends on how often it was started.
TRAINER = """
    import os
    from methods.rotnet.trainer import RotNet

    class Forgetful(RotNet):
        def loss(self, batch, step):
            loss, scalars = super().loss(batch, step)
            return loss * (1 + 0.01 * (int(os.environ["SSLRUN_GENERATION"]) > 1)), scalars
"""
SPEC = """
    import dataclasses
    from methods.rotnet.spec import METHOD as ROTNET

    METHOD = dataclasses.replace(ROTNET, name="forgetful", trainer="forgetful.trainer:Forgetful")
"""


@pytest.fixture
def forgetful(with_method):
    """The command line where a method of another package is installed, which resumes otherwise than it stopped."""
    return with_method("forgetful", spec=SPEC, trainer=TRAINER)


@pytest.mark.fault
@pytest.mark.slow
def test_it_names_the_fault_and_the_step_from_which_the_run_is_another(forgetful, tmp_path):
    words = (
        "method=forgetful",
        "method.name=forgetful",
        "faults=term-to-one-rank,second-submission",
        f"runs={tmp_path / 'runs'}",
    )
    answer = forgetful("drill", *words, "--json", code=4)
    assert not answer.json["as_expected"]
    rows = {row["name"]: row for row in answer.json["faults"] if not row["skipped"]}
    told, asked = rows["term-to-one-rank"], rows["second-submission"]
    assert told["causes"] == ["stopped"] and told["lost_steps"] == 0
    assert not told["exact"] and not told["as_expected"]
    (problem,) = told["problems"]
    assert "another state than the run that nobody disturbed, from step" in problem
    assert problem in answer.err and told["run"] in answer.err  # kept, to be looked at
    assert asked["causes"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=rotnet", "faults=99"), "faults=99: there is no such fault; known: all, 1 kill-"),
        (("method=rotnet", "faults=,"), "faults=,: it names none"),
        (("faults=1",), "method is missing"),
        (("no-such-run", "faults=1"), "RUN=no-such-run: there is no such run"),
        (("method=rotnet", "methid.lr=1"), "methid.lr=1"),
        (("method=rotnet", "--at-once", "0"), "--at-once=0"),
        (("one", "two"), "two: one run at a time"),
    ],
)
def test_bad_input_is_one_line(sslrun, one_line, tmp_path, words, said):
    answer = sslrun("drill", *words, f"runs={tmp_path / 'runs'}", code=2)
    assert said in one_line(answer)
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_is_not_there_is_said(sslrun, tmp_path):
    answer = sslrun("drill", "method=rotnet", "cluster=generic", f"runs={tmp_path / 'runs'}", code=None)
    assert answer.code in (2, 3)
    assert "Slurm" in answer.complaint


def test_what_cannot_be_injected_here_is_left_out_with_the_reason(sslrun, tmp_path):
    answer = sslrun("drill", "method=rotnet", "faults=4,6,7", f"runs={tmp_path / 'runs'}", "--json")
    assert {row["skipped"] for row in answer.json["faults"]} == {"needs Slurm"}
    assert answer.json["as_expected"]
    assert "left out, needs Slurm: " in answer.err
