"""`sslrun kmeans`: cluster a folder of features, or those of a run's backbone, here or as a job."""

from argparse import ArgumentParser, Namespace

from launcher.verbs import arguments, drive

EXAMPLE = "sslrun kmeans features=/data/features k=80000 m=4 nodes=2"
KEYS = (
    "features=FOLDER of .npy or .safetensors shards, or RUN; k=NUMBER; m, iterations, metric=l2|cosine, "
    "init=random|k-means++, empty=split|keep|resample, deterministic=true, out=FOLDER, layer; nodes, tasks_per_node, "
    "cluster, seed, runs; data, where a run's backbone is to see other images than the run's"
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=KEYS)
    parser.add_argument("--plan", action="store_true", help="say what it would take, and stop")
    arguments.add_composing(parser)


def run(options: Namespace) -> int:
    """Cluster features into k clusters, or into m and then k within each, without moving them: assignments of every
    shard, centroids and a summary; resumable, as a job or here."""
    from launcher.compose import clustering

    if options.cfg:
        told = Namespace(**{**vars(options), "overrides": clustering.translated(options.overrides)})
        return arguments.print_config(told, planning=False)
    spec = clustering.want(options.overrides, config_dir=options.config_dir)
    if not options.plan:
        return drive.submit_or_join(spec, options)
    from launcher.plan import clustering as planning

    plan = planning.make(spec).to_json()
    if options.json:
        import json

        print(json.dumps(plan))
    else:
        from launcher.report import view
        from launcher.report.screen import console

        screen, why = console(), plan.pop("why")
        view.show(plan, screen)
        view.show(why, screen)
    return 0
