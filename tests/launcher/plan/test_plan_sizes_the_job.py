"""Times, memory and warnings of a plan follow from the cluster's figures, and each number says how."""

import math

import pytest

from launcher.compose import clusters
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import cost
from launcher.plan import plan as planning
from launcher.plan.kmeans_cost import Problem, iteration, machine
from launcher.spec.contract import Rounds
from launcher.spec.schema import ClusterConfig


def planned(*overrides, method="deepercluster", nodes=8, cluster="generic"):
    overrides = [f"method={method}", f"nodes={nodes}", f"cluster={cluster}", *overrides]
    spec, recipe = resolve(overrides, planning=True)
    return planning.make(spec, recipe)


def interval(save, nodes, rate):
    return cost.save_interval(save, nodes, ClusterConfig(name="mine", interruptions_per_node_day=rate))


# -- how often to save -------------------------------------------------------------------------------------------------


def test_the_interval_is_young_and_dalys():
    seconds, mtbf = interval(save=10, nodes=16, rate=0.1)
    assert mtbf == 86_400 / 1.6
    assert seconds == pytest.approx(math.sqrt(2 * 10 * mtbf))


def test_the_interval_loses_least():
    save, nodes, rate = 10, 16, 0.1
    best, mtbf = interval(save, nodes, rate)
    lost = lambda seconds: save / seconds + seconds / 2 / mtbf  # noqa: E731
    assert lost(best) < min(lost(best / 1.2), lost(best * 1.2))


def test_the_interval_is_an_hour_at_most_and_saving_takes_a_tenth_at_most():
    assert interval(save=10, nodes=1, rate=0) == (3600, math.inf)
    assert interval(save=60, nodes=1, rate=0.0001)[0] == 3600
    assert interval(save=60, nodes=64, rate=10)[0] == 600
    assert interval(save=1000, nodes=1, rate=0)[0] == 10_000


def test_the_plan_saves_that_often():
    plan, often = planned(), planned("cluster.interruptions_per_node_day=2")
    seconds = interval(plan.save_seconds, 8, 0.1)[0]
    per_step = plan.hours * 3600 / plan.steps
    assert 0.5 < plan.checkpoint_every * per_step / seconds < 1.5  # hours hold more than steps
    assert often.checkpoint_every == pytest.approx(plan.checkpoint_every / math.sqrt(20), rel=0.01)
    assert "2.5 days" not in plan.why["checkpoint_every"] and "30 h" in plan.why["checkpoint_every"]


def test_a_given_interval_stays():
    plan = planned("method.checkpoint_every=500")
    assert (plan.checkpoint_every, plan.why["checkpoint_every"]) == (500, "given")


def test_a_short_run_saves_within_its_length():
    plan = planned("recipe=tiny", "method.checkpoint_every=0", method="rotnet", nodes=1, cluster="local")
    assert 1 <= plan.checkpoint_every <= plan.steps


# -- how early to be told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "save, minutes, seconds", [(0, 1440, 60), (43, 1440, 159), (600, 1440, 1830), (43, 4, 119), (1, 1, 29)]
)
def test_the_signal_leaves_time_for_three_saves_and_half_the_limit_for_work(save, minutes, seconds):
    assert cost.signal_delay(save, minutes) == seconds
    assert seconds < minutes * 60 / 2


def test_the_signal_is_in_the_script():
    plan = planned()
    assert plan.signal_delay_s == cost.signal_delay(plan.save_seconds, 1440) > 60
    assert f"#SBATCH --signal=USR2@{plan.signal_delay_s}\n" in plan.sbatch
    assert planned("cluster.signal_delay_s=77").signal_delay_s == 77


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_nothing_is_warned_of_where_all_is_well():
    assert planned().warnings == ()
    assert planned("recipe=demo", nodes=1, cluster="local").warnings == ()


@pytest.mark.parametrize("preemptible, grace, warned", [("true", 0, True), ("true", 300, False), ("false", 0, False)])
def test_a_save_that_does_not_fit_the_grace_is_warned_of(preemptible, grace, warned):
    plan = planned(f"cluster.preemptible={preemptible}", f"cluster.grace_s={grace}")
    assert [w for w in plan.warnings if "cluster.grace_s" in w and "43 s" in w] == list(plan.warnings)
    assert bool(plan.warnings) == warned


def test_a_save_that_does_not_fit_before_the_time_limit_is_warned_of():
    (warning,) = planned("cluster.timeout_min=1").warnings
    assert "signal_delay_s" in warning and "cluster.timeout_min" in warning


def test_bf16_where_gpus_have_none_is_warned_of_and_priced():
    bf16, fp16 = (planned(f"method.precision={p}", cluster="v100_32gb") for p in ("bf16", "fp16"))
    (warning,) = bf16.warnings
    assert "method.precision=bf16" in warning and "method.precision=fp16" in warning
    assert fp16.warnings == ()
    assert bf16.hours > 3 * fp16.hours


def test_host_memory_holds_the_features_of_all_images():
    plan = planned()
    features = 95_920_149 / 8 * 4096 * 4 / 1e9
    assert features < plan.host_memory_gb < features + 8 * 10
    assert f"{features:.0f}" in plan.why["host_memory_gb"]
    assert planned(method="rotnet").host_memory_gb == pytest.approx(plan.host_memory_gb - features, abs=0.1)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["cluster.host_mem_gb=200"], "cluster.host_mem_gb=200; use more nodes"),
        (["cluster.mem_gb=100"], "the job asks for 107"),
        (["cluster.mem_per_gpu=10G"], "the job asks for 86"),
        (["cluster.mem_per_cpu=1000"], "the job asks for 67"),
        (["cluster.mem_gb=0"], None),
        (["cluster.mem_gb=400"], None),
    ],
)
def test_too_little_host_memory_is_warned_of(overrides, words):
    warnings = planned(*overrides).warnings
    assert warnings == () if words is None else words in warnings[0]


# -- time --------------------------------------------------------------------------------------------------------------


def test_time_falls_with_the_speed_of_the_gpus():
    hours = [planned("method.precision=fp16", cluster=name).hours for name in ("v100_32gb", "a100_80gb", "h100")]
    assert hours[0] > 1.5 * hours[1] > 1.5 * 1.5 * hours[2]


def test_gpu_hours_are_hours_times_gpus():
    plan = planned(nodes=8)
    assert plan.gpu_hours == pytest.approx(plan.hours * 64, rel=1e-3)


def test_kmeans_takes_what_its_model_says_of_the_published_setting():
    """Thesis 3.3.1: 10 iterations of both levels on 64 GPUs, at every one of 34 reassignments."""
    whole, less = planned(), planned("method.kmeans_iterations=1")
    levels = [Problem(95_920_149, 4, 4096), Problem(95_920_149, 80_000, 4096, m=4)]
    cluster = clusters.shipped("generic")
    both = [iteration(level, machine(cluster, 8, 8, level, bf16=False)) for level in levels]
    seconds = sum(level.seconds for level in both)
    assert seconds == pytest.approx(2 * 95_920_149 * 80_004 * 4096 / (64 * 0.6 * 15.7e12), rel=0.05)
    assert (whole.hours - less.hours) * 3600 / 9 == pytest.approx(34 * seconds, rel=0.001)
    why = whole.why["hours"]
    assert "34 rounds" in why and "10 iterations into 4, then 10 iterations into 320,000" in why
    assert f"{sum(10 * level.sent_bytes for level in both) / 1e9:.3g} GB" in why and "60% of the fp32 peak" in why


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_labels_that_are_not_of_kmeans_take_fp32s_time_and_the_memorys(precision):
    """SeLa-v2: 3 x 3,000 scores of 128 dimensions, each of 32 bytes that move, once more with every iteration."""
    whole, less = (
        planned(f"method.precision={precision}", f"method.sinkhorn_iterations={n}", method="selav2") for n in (1001, 1)
    )
    an_image = 9000 * (2 * 128 / (0.6 * 15.7e12) + 32 / 900e9)
    seconds = 400 * 1_281_167 / 64 * 1000 * an_image
    assert (whole.hours - less.hours) * 3600 == pytest.approx(seconds, rel=0.001)
    assert "400 rounds of features" in whole.why["hours"] and "60% of the fp32 peak" in whole.why["hours"]


def test_labels_on_a_cpu_take_its_share_of_the_peak_and_of_the_memory():
    rounds = Rounds(1, 0.0, (), 0.0, fp32_flops=3e9, moved_bytes=2e9)
    cluster = ClusterConfig(
        name="mine", gpus_per_node=0, gpu_fp32_tflops=0.2, efficiency=0.5, gpu_mem_gb_s=20.0, gpu_tflops=9.0
    )
    each = 3e9 / (0.5 * 0.1e12) + 2e9 / 10e9  # two ranks on each of two machines
    assert cost.labels_seconds(rounds, 100, 2, 2, cluster) == pytest.approx(25 * each)


def test_the_demo_takes_the_time_that_was_measured():
    """docs/benchmarks.md: 68.7 s of training, 12.8 s of loading and 10.2 s of clustering on 2 cores."""
    plan = planned("recipe=demo", nodes=1, cluster="local")
    assert 75 < plan.hours * 3600 < 110
    assert "images/s" in plan.why["hours"] and "docs/benchmarks.md" in plan.why["hours"]
    elsewhere = planned("recipe=demo", nodes=1, cluster="h100")
    assert "images/s" not in elsewhere.why["hours"]  # the speed of a CPU says nothing about a GPU


def test_two_ranks_of_one_machine_share_its_cores():
    one, two = (planned("recipe=demo", f"tasks_per_node={n}", nodes=1, cluster="local") for n in (1, 2))
    assert two.hours == pytest.approx(one.hours, rel=0.05)


def test_gradients_of_a_group_travel_only_where_it_spans_nodes():
    inside, across = (planned(nodes=n, cluster="h100") for n in (8, 64))
    shared = 2 * 134_333_968 * 4 / 400e9
    assert f"all-reduce {shared * 7 / 8:.3g}" in inside.why["hours"]
    grouped = 2 * 3 / 4 * 80_000 * 4097 * 4 / 400e9  # 32 ranks of a group on 4 nodes
    assert f"all-reduce {shared * 63 / 64 + grouped:.3g}" in across.why["hours"]
    assert "all-reduce" not in planned(nodes=1, cluster="h100").why["hours"]


def test_a_long_run_says_how_many_jobs_it_takes():
    plan = planned("cluster.timeout_min=600")
    jobs = math.ceil(plan.hours * 60 / (600 - plan.signal_delay_s / 60))
    assert plan.why["timeout_min"].startswith(f"{jobs} jobs")


def test_without_data_a_method_is_checked_for_the_recipes_images():
    with pytest.raises(InputError, match=r"method\.prototypes=2000000: .*use at most"):
        planned("method.prototypes=2000000", method="selav2")
