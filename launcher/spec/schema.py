"""What a person can set, as plain dataclasses that Hydra composes over: of a training, a cluster, a launch.

They are mutable, because OmegaConf needs that, until `freeze` makes a RunSpec of them. Fields made with `ops()` say
where and how comfortably a run runs; all other fields are the science and make up the run's identity. A field that is
added to the science later is made with `later()`, so that the runs that there are keep theirs. See fields.py.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from launcher.spec.fields import below_one, check_ranges, choice, later, not_negative, ops, positive, refuse


@dataclass
class TrainConfig:
    """What every method's schema begins with; `methods/<method>/spec.py` adds the rest and gives the recipes."""

    name: str = "???"  # the registered method whose trainer runs
    backbone: str = "???"
    image_size: int = positive(224)  # pixels, square
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # share of the area kept by a random crop
    epochs: int = positive(100)
    # Images an optimiser step, over all ranks: part of the science, whatever the node count.
    global_batch: int = positive(256)
    batch_norm_group: int = not_negative(0)  # images that share batch statistics; 0 = the whole global batch
    lr: float = positive(0.1)
    schedule: str = choice("constant", "cosine")
    final_lr: float = later(not_negative(0.0))  # of the cosine schedule, after the last step
    warmup_epochs: float = not_negative(0.0)  # linear, from warmup_lr
    warmup_lr: float | None = later(not_negative(None))  # at the first step of a warm-up; null: lr / 100
    momentum: float = below_one(0.9)
    weight_decay: float = not_negative(1e-5)
    dropout: float = below_one(0.5)
    precision: str = choice("bf16", "fp16", "fp32", default="fp32")
    workers: int = ops(not_negative(8))  # data-loader processes a rank; 0 loads inside the training process
    checkpoint_every: int = ops(not_negative(0))  # steps; 0 = the plan decides
    keep_checkpoints: int = ops(positive(2))
    log_every: int = ops(positive(10))  # steps
    eval_every: int = ops(not_negative(0))  # epochs; 0 = only at the end
    on_collapse: str = ops(choice("notice", "stop"))  # once outputs are alike for all images
    knn_neighbours: int = ops(positive(20))  # thesis 5.3.2: 20 works best for most runs


_positive = partial(positive, fix="give another number")
_not_negative = partial(not_negative, fix="give another number")
_LONGEST_SIGNAL = 65535  # seconds; sbatch takes no more


@dataclass
class ClusterConfig:
    """One kind of cluster; its YAML lives in `cluster_configs/`. The queue's fields are named as in submitit and its
    Hydra plugin. GB are 1e9 bytes, except in what is asked of Slurm, which counts 1024 MB."""

    name: str = "???"
    kind: str = "slurm"  # slurm | local

    # What a node has, and how fast it is: the plan computes with it.
    gpus_per_node: int = _not_negative(8)  # 0: CPU processes
    cpus_per_node: int = _positive(64)
    host_mem_gb: float = _not_negative(256.0)
    gpu_mem_gb: float = _not_negative(32.0)
    gpu_tflops: float = _positive(125.0)  # dense bf16/fp16 peak of one GPU
    gpu_fp32_tflops: float = _positive(15.7)
    gpu_mem_gb_s: float = _positive(900.0)  # bandwidth of a GPU's memory; of the machine's where there are no GPUs
    host_gb_s: float = _positive(12.0)  # from host memory to one GPU
    bf16: bool = True  # whether the GPUs reach gpu_tflops in bf16; before Ampere they do in fp16 alone
    efficiency: float = _positive(0.35)  # share of the peak that a convnet reaches in training
    network_gb_s: float = _positive(10.0)  # all-reduce bandwidth a node
    disk_gb_s: float = _positive(1.0)  # of the shared file system, for all ranks of a job together

    # How long it lets a job work.
    preemptible: bool = False
    # From the signal of a preemption to the kill; Slurm's GraceTime, 0 unless somebody set it.
    grace_s: int = _not_negative(0)
    interruptions_per_node_day: float = _not_negative(0.1)  # preemptions and failures
    # Of these. 0: nobody knows; then failures are what they are elsewhere where it is preemptible, and all where not.
    preemptions_per_node_day: float = _not_negative(0.0)
    queue_minutes: list[float] = field(default_factory=list)  # that a job waits: the median, and what 90 % wait at most
    stall_minutes: float = _not_negative(30)  # without progress, before a rank writes its stacks and ends; 0: never
    # Asked for beside `nodes`: they idle until one of those is lost, and the run goes on without a place in the queue.
    spare_nodes: int = _not_negative(0)
    # Ranks of a next start in the same job wait beside those at work, with PyTorch in memory; see docs/preemption.md.
    standby: bool = True

    # The queue. None: as the cluster has it.
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes
    gres: str | None = None  # in place of gpus_per_node where it names GPUs, such as gpu:a100:8
    # Composing makes numbers of what people write as Slurm does: 1-12:00:00, 500G.
    timeout_min: int | float | str = _positive(1440)
    mem_gb: int | float | str | None = _not_negative(None)  # a node; 0: all of it
    mem_per_gpu: str | None = None  # such as 60G
    mem_per_cpu: str | None = None
    cpus_per_task: int | None = _positive(None)  # None: the plan shares the node's CPUs
    cpus_per_gpu: int | None = _positive(None)
    array_parallelism: int = _positive(256)  # jobs of one sweep at a time
    # Warning before the time limit; None: the plan sizes it from the save time.
    signal_delay_s: int | None = _positive(None)
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # any other option of sbatch
    srun: dict[str, Any] = field(default_factory=dict)  # options of srun, as above: mpi, container-image
    # Bash in the job's own shell: module load ...; one that fails ends the start.
    setup: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # of the ranks: NCCL_DEBUG, ...
    python: str | None = None  # shell words that start a rank: an interpreter, or a container command; None: ours
    # A folder of each node's own disk, such as /scratch: ranks start from a copy of the environment there.
    local_env: str | None = None

    def validate(self) -> None:
        """Raises InputError naming the first number that cannot be, or two fields that exclude each other."""
        check_ranges(self, prefix="cluster.")
        refused = partial(refuse, self, prefix="cluster.")
        if self.local_env is not None and self.kind == "local":
            refused("local_env", "cluster=local is this one machine", "leave it out")
        if self.preemptions_per_node_day > self.interruptions_per_node_day:
            reason = f"cluster.interruptions_per_node_day={self.interruptions_per_node_day:g} counts them, too"
            refused("preemptions_per_node_day", reason, "give at most that, or raise that")
        waits = [*self.queue_minutes]
        if waits and not (len(waits) == 2 and 0 <= waits[0] <= waits[1] < math.inf):
            refused("queue_minutes", "it is no median and 90 % of a wait", "give two, such as [10,120]")
        if self.efficiency > 1:
            refused("efficiency", "it is a share of the peak", "give 0 to 1")
        limit = min(30 * self.timeout_min - 1, _LONGEST_SIGNAL)
        if self.signal_delay_s is not None and self.signal_delay_s > limit:
            reason = f"the warning must come in the later half of timeout_min={self.timeout_min}"
            refused("signal_delay_s", reason, f"use at most {limit}")
        for names in (("mem_gb", "mem_per_gpu", "mem_per_cpu"), ("cpus_per_task", "cpus_per_gpu")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                refused(given[1], f"cluster.{given[0]} is given too", f"set cluster.{given[0]}=null")
        for name, other in (("cpus_per_gpu", "cpus_per_task"), ("mem_per_gpu", "mem_per_cpu")):
            if getattr(self, name) is not None and not self.gpus_per_node:
                refused(name, "this cluster has no GPUs", f"use cluster.{other}")


@dataclass
class LaunchConfig:
    """The root that overrides address: `sslrun method=... nodes=...`."""

    method: Any = "???"
    data: Any = "???"
    eval_data: Any = None
    cluster: Any = "???"
    recipe: str = "paper"
    nodes: Any = 1  # 8; or 4-8, as many of these as there are
    tasks_per_node: int | None = None  # one a GPU by default; one process where there are none
    seed: int = 0
    init_from: str | None = None  # RUN as it is at its end, RUN@STEP, RUN@newest, or a file of weights
    continue_from: str | None = None  # a finished run, to be trained for more epochs
    runs: str = "runs"
    group: str | None = None  # a Unix group that may read the runs; they are private otherwise
    eval_after: Any = None  # protocols to run as jobs of their own once the run is done: knn or [knn,...]
    probes: Any = "knn"  # protocols that judge it between its steps; null: none
