"""What `sslrun plan` prints is what Slurm takes, for every method at every size of the papers."""

import pytest

from launcher.spec import registry


@pytest.mark.parametrize("gpus", [64, 256, 512])
@pytest.mark.parametrize("method", registry.names())
def test_the_batch_script_passes_slurms_own_test_or_the_plan_says_why_not(
    big_cluster, slurm_sslrun, config_dir, tmp_path, method, gpus
):
    sslrun = slurm_sslrun(big_cluster)
    words = (f"method={method}", f"nodes={gpus // 8}", "cluster=fake", "--config-dir", config_dir(big_cluster))
    plan = sslrun("plan", *words, "--json", code=None)
    if plan.code:  # refused: one line, with the sizes that work
        assert plan.code == 2 and "use" in plan.complaint
        return
    assert plan.json["world_size"] == gpus
    script = tmp_path / "script.sh"
    script.write_text(plan.json["sbatch"])
    said = big_cluster.run("sbatch", "--test-only", script)
    assert f"{gpus // 8} nodes" in said.stderr or "to start at" in said.stderr
