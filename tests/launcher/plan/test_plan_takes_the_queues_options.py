"""Every field of a cluster arrives in the batch script as sbatch knows it, or is refused by name."""

import json
import re
import shlex
import sys

import pytest

from launcher.compose import clusters, training
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.plan import script
from launcher.spec.schema import ClusterConfig
from launcher.spec.stored import read as read_spec

QUEUE = (
    "partition", "qos", "account", "constraint", "exclude", "gres", "timeout_min", "mem_gb", "mem_per_gpu",
    "mem_per_cpu", "cpus_per_task", "cpus_per_gpu", "array_parallelism", "signal_delay_s", "additional_parameters",
    "srun", "setup", "environment", "python", "preemptible", "grace_s", "interruptions_per_node_day", "spare_nodes",
)  # fmt: skip
# What would have a step be another job's, or of other nodes.
NOT_OF_A_STEP = ("begin", "clusters", "dependency", "het-group", "no-allocate", "preserve-env")


def spec_of(*overrides, cluster="generic", **options):
    return resolve(["method=rotnet", "nodes=2", f"cluster={cluster}", *overrides], planning=True, **options)


def options_of(*overrides, **options):
    """{option: value} of the planned script, as sbatch reads its lines; None for one without a value."""
    text = planning.make(*spec_of(*overrides, **options)).sbatch
    read = {}
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            ((name, _, value),) = [word.partition("=") for word in shlex.split(line)[1:]]
            assert name not in read, f"{name} twice"
            read[name] = value or None
    return read


def refusal(*overrides):
    with pytest.raises(InputError) as refused:
        planning.make(*spec_of(*overrides))
    assert refused.value.exit_code == 2
    return str(refused.value)


@pytest.mark.parametrize(
    "override, option, value",
    [
        ("cluster.partition=gpu", "--partition", "gpu"),
        ("cluster.partition='gpu,low prio'", "--partition", "gpu,low prio"),
        ("cluster.qos='$(id)'", "--qos", "$(id)"),
        ('cluster.account="o\'neil"', "--account", "o'neil"),
        ("cluster.constraint='[a100*4&ib;x]'", "--constraint", "[a100*4&ib;x]"),
        ("cluster.exclude='n[1-3,7]'", "--exclude", "n[1-3,7]"),
        ("cluster.gres='nvme:1'", "--gres", "nvme:1"),
        ("cluster.timeout_min=90", "--time", "90"),
        # The forms of sbatch's own --time, and how its manual page reads them; it rounds up to whole minutes.
        ("cluster.timeout_min=90:00", "--time", "90"),
        ("cluster.timeout_min=0:30", "--time", "1"),
        ("cluster.timeout_min=2:00:00", "--time", "120"),
        ("cluster.timeout_min=02:30:01", "--time", "151"),
        ("cluster.timeout_min=1-12", "--time", "2160"),
        ("cluster.timeout_min=1-00:30", "--time", "1470"),
        ("cluster.timeout_min=2-03:04:05", "--time", "3065"),
        ("cluster.timeout_min='90'", "--time", "90"),
        ("cluster.mem_gb=60G", "--mem", "60G"),
        ("cluster.mem_gb=60000M", "--mem", "60000M"),
        ("cluster.mem_gb=1T", "--mem", "1024G"),
        ("cluster.mem_gb='100'", "--mem", "100G"),
        ("cluster.mem_gb=100", "--mem", "100G"),
        ("cluster.mem_gb=0", "--mem", "0G"),
        ("cluster.mem_gb=1.5", "--mem", "1536M"),
        ("cluster.mem_per_gpu=60G", "--mem-per-gpu", "60G"),
        ("cluster.mem_per_cpu=2000", "--mem-per-cpu", "2000"),
        ("cluster.cpus_per_task=3", "--cpus-per-task", "3"),
        ("cluster.cpus_per_gpu=4", "--cpus-per-gpu", "4"),
        ("cluster.signal_delay_s=300", "--signal", "USR2@300"),
        ("cluster.additional_parameters.reservation=maintenance", "--reservation", "maintenance"),
        ("cluster.additional_parameters.mail_user=a@b.c", "--mail-user", "a@b.c"),
        ("cluster.additional_parameters.mail-user=a@b.c", "--mail-user", "a@b.c"),
        ("cluster.additional_parameters.nice=100", "--nice", "100"),
        ("cluster.additional_parameters.exclusive=true", "--exclusive", None),
        ("cluster.additional_parameters={exclusive:user,nice:1}", "--exclusive", "user"),
    ],
)
def test_a_field_becomes_the_option(override, option, value):
    assert options_of(override)[option] == value


def test_ones_own_yaml_may_write_them_so_too(tmp_path):
    (tmp_path / "cluster").mkdir()
    queue = "timeout_min: 2:00:00\nmem_gb: 60G\naccount: 0123\nadditional_parameters: {begin: 16:00}\n"
    for name, begin in (("mine", "name: mine\n"), ("extended", "defaults: [generic, _self_]\n")):
        (tmp_path / "cluster" / f"{name}.yaml").write_text(begin + queue)
        found = options_of(cluster=name, config_dir=tmp_path)
        assert {"--time": "120", "--mem": "60G", "--account": "0123", "--begin": "16:00"}.items() <= found.items()


def test_what_nobody_asked_for_is_left_to_the_cluster():
    assert options_of().keys() == {
        "--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal",
        "--requeue", "--open-mode", "--output",
    }  # fmt: skip
    assert "--exclusive" not in options_of("cluster.additional_parameters.exclusive=false")


def test_gpus_are_asked_for_once_and_only_those_that_are_used():
    assert options_of()["--gpus-per-node"] == "8"
    assert options_of("tasks_per_node=2")["--gpus-per-node"] == "2"
    assert options_of("tasks_per_node=2")["--cpus-per-task"] == "8"  # a quarter of the node's GPUs, as of its CPUs
    assert "--gpus-per-node" not in options_of("cluster.gpus_per_node=0")
    by_kind = options_of("cluster.gres='gpu:a100:8,nvme:1'")
    assert by_kind["--gres"] == "gpu:a100:8,nvme:1" and "--gpus-per-node" not in by_kind


def test_cpus_of_a_gpu_replace_cpus_of_a_task(recwarn):
    options = options_of("cluster.cpus_per_gpu=4")
    assert "--cpus-per-task" not in options
    assert not list(recwarn)


@pytest.mark.parametrize("field", ["partition", "qos", "account", "constraint", "exclude", "gres", "python"])
@pytest.mark.parametrize("value", ["a\nb", "a\r#SBATCH --x", "a\0b", "\x1b[2J", "bad\udcff", "a\u2028b", " ", ""])
def test_a_value_that_would_break_the_line_is_refused(field, value):
    with pytest.raises(InputError, match=f"^cluster.{field}="):
        script.check(ClusterConfig(name="mine", **{field: value}))


def test_a_key_that_would_break_the_line_is_refused():
    for field in ("additional_parameters", "environment"):
        with pytest.raises(InputError, match=f"^cluster.{field}"):
            script.check(ClusterConfig(name="mine", **{field: {"a\n#SBATCH --x": "1"}}))


@pytest.mark.parametrize(
    "override, words",
    [
        ("cluster.additional_parameters={A b:1}", ("cluster.additional_parameters.A b", "no option of sbatch")),
        ("cluster.additional_parameters.comment='a\nb'", ("cluster.additional_parameters.comment",)),
        ("cluster.additional_parameters.begin='a\nb'", ("cluster.additional_parameters.begin", "cannot carry")),
        ("cluster.additional_parameters.time=5", ("additional_parameters.time=5", "use cluster.timeout_min")),
        ("cluster.additional_parameters.cpus_per_task=5", ("use cluster.cpus_per_task",)),
        ("cluster.additional_parameters.output=/tmp/x", ("output=/tmp/x", "sslrun sets it itself")),
        ("cluster.additional_parameters.nodelist=[a,b]", ("additional_parameters.nodelist", "one value", "'a,b'")),
        ("cluster.srun={A b:1}", ("cluster.srun.A b", "no option of srun")),
        ("cluster.srun.mpi='a\nb'", ("cluster.srun.mpi", "cannot carry")),
        ("cluster.srun.cpus_per_task=5", ("cluster.srun.cpus_per_task=5", "use cluster.cpus_per_task")),
        ("cluster.srun.nodelist=[n1,n2]", ("cluster.srun.nodelist", "sslrun sets it itself")),
        ("cluster.srun.kill-on-bad-exit=1", ("cluster.srun.kill-on-bad-exit=1", "sslrun sets it itself")),
        ("cluster.srun.tasks-per-node=2", ("cluster.srun.tasks-per-node=2", "use tasks_per_node")),
        *((f"cluster.srun.{name}=1", (f"cluster.srun.{name}=1", "sslrun sets it itself")) for name in NOT_OF_A_STEP),
        ("cluster.srun.distribution=cyclic", ("cluster.srun.distribution=cyclic", "one node after the other")),
        ("cluster.additional_parameters.distribution=plane=4", ("distribution=plane=4", "write block:...")),
        ("cluster.srun.container-mounts={/a:/b}", ("cluster.srun.container-mounts", "one value", "'a,b'")),
        ("cluster.srun.container-mounts=[[/a],/b]", ("cluster.srun.container-mounts", "one value", "'a,b'")),
        ("cluster.srun.cpu-bind=[[1,2],{a: null}]", ("cluster.srun.cpu-bind=[[1,2],{a: null}]", "one value")),
        ("cluster.environment.MASTER_PORT=65536", ("MASTER_PORT='65536'", "it is no port", "give one below 65536")),
        ("cluster.environment.MASTER_ADDR='$HOSTNAME'", ("MASTER_ADDR='$HOSTNAME'", "write the name itself")),
        ("cluster.environment.MASTER_ADDR='a b'", ("MASTER_ADDR='a b'", "write the name itself")),
        ("cluster.environment.GLOO_SOCKET_IFNAME='a, b'", ("GLOO_SOCKET_IFNAME='a, b'", "nothing is called that")),
        ("cluster.environment={A: {b: c}}", ("cluster.environment.A={b: c}", "one text")),
        ("cluster.setup=['x','']", ("cluster.setup[1]=''", "it is empty; leave it out")),
        ("cluster.environment.RANK=0", ("cluster.environment.RANK", "leave it out")),
        ("cluster.environment.SLURM_JOB_ID=0", ("cluster.environment.SLURM_JOB_ID", "leave it out")),
        ("cluster.environment={A B:0}", ("cluster.environment.A B", "names no variable")),
        ("cluster.environment.A='x\ny'", ("cluster.environment.A", "cannot carry")),
        ("cluster.setup=['a\x00b']", ("cluster.setup", "cannot carry")),
        ('cluster.python="a \'b"', ("cluster.python", "close its quotes")),
        ("cluster.local_env=here", ("cluster.local_env=here", "give it from the root on, or as '$SCRATCH'")),
        ("cluster.local_env='/a\nb'", ("cluster.local_env", "cannot carry")),
        (
            "cluster.local_env=/scratch cluster.python='apptainer exec image.sif python'",
            ("cluster.local_env=/scratch", "brings an environment of its own", "leave one of them out"),
        ),
        ("cluster.local_env=/scratch cluster.python=python", ("cluster.python=python: each node", "its full path")),
        ("""cluster.local_env=/scratch cluster.python="'/a b/python'\"""", ("needs quotes", "the path of a link")),
        *(
            (f"cluster.local_env=/scratch cluster.srun.{name}=a#b", ("in the container a#b, which brings", "leave one"))
            for name in ("container-image", "container_name", "container")
        ),
        ("cluster.mem_per_gpu=lots", ("cluster.mem_per_gpu=lots", "60G")),
        ("cluster.timeout_min=0", ("cluster.timeout_min=0", "positive")),
        ("cluster.disk_gb_s=0", ("cluster.disk_gb_s=0", "positive")),
        ("cluster.efficiency=35", ("cluster.efficiency=35", "share")),
        ("cluster.gpu_tflops=inf", ("cluster.gpu_tflops=inf", "finite")),
        ("cluster.gpu_tflops=nan", ("cluster.gpu_tflops=nan", "finite")),
        ("cluster.grace_s=-1", ("cluster.grace_s=-1", "negative")),
        ("cluster.gpus_per_node=-8", ("cluster.gpus_per_node=-8", "negative")),
        ("cluster.timeout_min=4 cluster.signal_delay_s=120", ("signal_delay_s=120", "use at most 119")),
        ("cluster.mem_gb=9 cluster.mem_per_cpu=1G", ("cluster.mem_per_cpu=1G", "set cluster.mem_gb=null")),
        ("cluster.cpus_per_task=9 cluster.cpus_per_gpu=1", ("cluster.cpus_per_gpu=1", "cluster.cpus_per_task=null")),
        ("cluster.gpus_per_node=0 cluster.cpus_per_gpu=1", ("cluster.cpus_per_gpu=1", "use cluster.cpus_per_task")),
        ("cluster.gpus_per_node=0 cluster.mem_per_gpu=1", ("cluster.mem_per_gpu=1", "use cluster.mem_per_cpu")),
        ("tasks_per_node=16", ("tasks_per_node=16", "cluster.gpus_per_node=8", "use at most 8")),
    ],
)
def test_what_cannot_be_is_refused_by_name(override, words):
    line = refusal(*re.split(r" (?=cluster\.)", override))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    "override, words",
    [
        ("cluster.environmnt.A=1", ("cluster.environmnt.A", "did you mean cluster.environment?")),
        ("cluster.partition.x=1", ("cluster.partition.x",)),
        ("cluster.timeout_minutes=5", ("cluster.timeout_minutes", "did you mean cluster.timeout_min?")),
        ("cluster.timeout_min=soon", ("cluster.timeout_min=soon", "give minutes", "2:00:00")),
        ("cluster.timeout_min=2.5", ("cluster.timeout_min=2.5", "give minutes", "2:00:00")),
        ("cluster.timeout_min=1:2:3:4", ("cluster.timeout_min=1:2:3:4", "give minutes", "2:00:00")),
        ("cluster.timeout_min=1-2:3:4:5", ("cluster.timeout_min=1-2:3:4:5", "give minutes", "2:00:00")),
        ("cluster.timeout_min=UNLIMITED", ("cluster.timeout_min=UNLIMITED", "give minutes", "2:00:00")),
        ("cluster.mem_gb=lots", ("cluster.mem_gb=lots", "give GB", "500G")),
        ("cluster.preemptible=often", ("cluster.preemptible", "often", "bool")),
    ],
)
def test_a_field_that_is_not_there_is_refused(override, words):
    line = refusal(override)
    assert all(word in line for word in words), line


def test_keys_can_be_added_and_taken_away(tmp_path):
    (tmp_path / "cluster").mkdir()
    own = "name: mine\nenvironment: {A: 1}\nadditional_parameters: {nice: 5}\nsetup: [module load cuda]\n"
    (tmp_path / "cluster" / "mine.yaml").write_text(own)
    overrides = ("cluster.environment.B=two", "cluster.environment.A=3", "~cluster.additional_parameters.nice")
    spec, _ = spec_of(*overrides, cluster="mine", config_dir=tmp_path)
    assert spec.cluster.environment == {"A": "3", "B": "two"}
    assert spec.cluster.additional_parameters == {}
    assert spec.cluster.setup == ("module load cuda",)


def test_a_cluster_of_ones_own_says_only_what_differs(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("name: mine\npartition: gpu\n")
    assert options_of(cluster="mine", config_dir=tmp_path)["--partition"] == "gpu"
    (tmp_path / "cluster" / "mine.yaml").write_text("name: mine\npartitoin: gpu\n")
    with pytest.raises(InputError, match="partitoin"):
        spec_of(cluster="mine", config_dir=tmp_path)


@pytest.mark.parametrize(
    "override, words",
    [
        ("cluster.srun={}", []),
        ("cluster.srun={mpi:none,cpu-bind:none}", ["--mpi=none", "--cpu-bind=none"]),
        ("cluster.srun.container_mounts=[/a:/a,'/b c:/b']", ["--container-mounts=/a:/a,/b c:/b"]),
        ("cluster.srun.container-mounts=/a#1:/a", ["--container-mounts=/a#1:/a"]),
        ("cluster.srun.container-writable=true", ["--container-writable"]),
        ("cluster.srun.distribution='*:block'", ["--distribution=*:block"]),
        ("cluster.srun.distribution=[block:cyclic,Pack]", ["--distribution=block:cyclic,Pack"]),
        ("cluster.srun={mpi:null,container-readonly:false}", []),
        ("cluster.srun.container-image=2024_1", ["--container-image=2024_1"]),
    ],
)
def test_options_of_srun_are_its_words(override, words):
    spec, _ = spec_of(override)
    assert script.options_of_steps(spec.cluster) == words
    back = read_spec(json.loads(json.dumps(spec.to_json())))
    assert script.options_of_steps(back.cluster) == words
    assert script.options_of_steps(training.placed(back, ["cluster.timeout_min=60"]).cluster) == words
    outside = [word for word in words if not word.startswith("--container")]
    assert script.options_of_steps(spec.cluster, of_the_node=True) == outside


def test_where_srun_has_no_option_nothing_is_said_of_it_to_code_of_before():
    assert "srun" not in spec_of()[0].to_json()["cluster"]
    assert "srun" not in spec_of()[0].placement({"steps": 1, "signal_delay_s": 1})["cluster"]


def test_the_job_itself_begins_outside_of_a_container():
    inside, _ = spec_of("cluster.python=/opt/python", "cluster.srun.container-image=/x.sqsh")
    assert script.python_of(inside.cluster) == sys.executable


def test_the_mappings_are_frozen_and_survive_json():
    spec, _ = spec_of("cluster.environment.A=1", "cluster.additional_parameters.nice=5")
    for mapping in (spec.cluster.environment, spec.cluster.additional_parameters):
        for change in (lambda m: m.update(B="2"), lambda m: m.pop("A"), lambda m: m.__setitem__("B", "2")):
            with pytest.raises(AttributeError):
                change(mapping)
    stored = json.loads(json.dumps(spec.to_json()))
    back = read_spec(stored)
    assert back.cluster.environment == {"A": "1"} and back.cluster.additional_parameters == {"nice": 5}
    assert json.loads(json.dumps(back.to_json())) == stored
    assert script.parameters(back, signal_delay_s=60) == script.parameters(spec, signal_delay_s=60)


def test_the_interpreter_of_the_job_is_the_ranks_unless_they_run_in_a_container():
    own, _ = spec_of("cluster.python=/opt/python")
    assert script.python_of(own.cluster) == "/opt/python"
    for words in ("apptainer exec image.sif python", "python3.12"):
        contained, _ = spec_of(f"cluster.python='{words}'")
        assert script.python_of(contained.cluster) == script.python_of(spec_of()[0].cluster)


@pytest.mark.parametrize("name", sorted(clusters.files()))
def test_a_cluster_that_ships_can_be_planned_for(name):
    spec, recipe = resolve(["method=rotnet", f"cluster={name}", f"nodes={1 if name == 'local' else 8}"], planning=True)
    plan = planning.make(spec, recipe)
    assert spec.cluster.name == name
    assert (plan.sbatch is None) == (name == "local")
    lines = clusters.files()[name].read_text().splitlines()
    assert any(re.match(rf"#   sslrun .*cluster={name}\b", line) for line in lines), "it opens with its command"
    if name != "local":
        assert any("data sheet" in line for line in lines[:5]), "it names the source of its rates"
        fields = {line.split(":")[0] for line in lines if re.match(r"\w+:", line)}
        assert not set(QUEUE) - fields, "every field of the queue stands there, for people to set"
