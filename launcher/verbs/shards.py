"""`sslrun shards`: a folder of images as a few large tars, and the index of a folder of tars."""

import json
import shlex
from argparse import ArgumentParser, Namespace

from launcher.errors import InputError
from launcher.spec import registry
from launcher.verbs import arguments

absolute = registry.facts("data").absolute

NAMED = 20  # tars that are named on the screen; --json has all

EXAMPLE = "sslrun shards /data/images /scratch/shards"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="images; without OUT, tars to index")
    parser.add_argument(
        "out", metavar="OUT", nargs="?", help="where the shards go: an empty folder, or what is there of them"
    )
    parser.add_argument("--size-mb", type=float, default=1000, metavar="MB", help="of a shard, 1000 by default")
    parser.add_argument("--labels", default="auto", help="auto, folders or none, as of data=image_folder")
    parser.add_argument("--splits", default="auto", help="auto or none, as of data=image_folder")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="files read at once, 8 by default")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Convert a folder of images into shards for data=shards, or, without OUT, index a folder of tars. Started again it
    goes on where it was stopped; finished shards stay."""
    from launcher.report.bar import Bar
    from methods.data.convert import convert
    from methods.data.shard_index import index_all

    if not 0 < options.size_mb < 1e6:
        raise InputError.of("--size-mb", options.size_mb, "no size of a shard", "give 1 to 1000000, better about 1000")
    if options.workers < 1:
        raise InputError.of("--workers", options.workers, "nobody would work", "give 1 or more")
    for name, known in (("labels", ("auto", "folders", "none")), ("splits", ("auto", "none"))):
        if getattr(options, name) not in known:
            raise InputError.of(f"--{name}", getattr(options, name), "unknown", f"choose one of {', '.join(known)}")
    folder, made = absolute(options.out or options.folder), {}
    with Bar("stopped; the same command goes on where this one was") as bar:
        if options.out:
            made = convert(
                options.folder,
                folder,
                size_mb=options.size_mb,
                labels=options.labels,
                splits=options.splits,
                threads=options.workers,
                progress=bar,
            )
        try:
            found = index_all(folder, workers=options.workers, anew=not options.out, progress=bar)
        except InputError as error:
            raise error.about("OUT" if options.out else "FOLDER") from None
    answer = {"path": folder, **found, **made}
    for tar, problem in answer["damaged"]:
        arguments.say(f"damaged: {tar}: {problem}; what can be read of it is in the index")
    for line in registry.facts("data").told_not_read(made.get("not_read", {})):
        arguments.say(line)
    _say_counts(answer)
    use = f"data=shards data.path={shlex.quote(folder)}"
    arguments.say(f"{answer['images']:,} images in {answer['shards']:,} shards: {use}")
    if options.json:
        print(json.dumps(answer))
    return 0


def _say_counts(answer: dict) -> None:
    """What was seen in each tar, and used; of many, in those of which something was left out."""
    told = registry.facts("data").tars.told
    some = answer["tars"]
    if len(some) > NAMED:
        some = [(tar, counts) for tar, counts in some if counts["left"]]
    for tar, counts in some[:NAMED]:
        arguments.say(f"{tar}: {told(counts)}")
    if len(some) > NAMED:
        arguments.say(f"something was left out of {len(some) - NAMED:,} tars more; --json names them")
    for name in answer["beside"]:
        arguments.say(f"{name}: compressed, and no part of it")
