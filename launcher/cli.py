"""`sslrun`: the verbs. Our own parser, because Hydra's rejects verbs; its compose API and its grammar behind it.

Nothing here imports torch; what a verb needs beyond the standard library is imported in the verb.
"""

import contextlib
import json
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ClusterError, InputError, RunFailed, SslrunError

if TYPE_CHECKING:
    from launcher.rundir import RunDir

ABOUT = """\
Train self-supervised vision models on Slurm clusters, and on the machine at hand.

  sslrun method=deepercluster recipe=demo      minutes, on this machine, on real photographs
  sslrun plan method=deepercluster nodes=8     what a run would take, and why
  sslrun status | show RUN | logs RUN -f | resume RUN | cancel RUN | export RUN

method, recipe, data, eval_data, cluster, nodes, tasks_per_node, seed, init_from and runs are set at the root; all else
in its group: method.lr=0.2, data.path=/images. `sslrun plan METHOD... --cfg` prints every field.
"""


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exit codes: 0 done or joined, 2 input, 3 cluster, 4 failed, 130 stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sslrun status | head` ends quietly
    try:
        sys.exit(_dispatch(arguments))
    except SslrunError as error:
        print(f"sslrun: {error}", file=sys.stderr)
        if "--json" in arguments:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"sslrun: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _dispatch(arguments: list[str]) -> int:
    verb = arguments[0] if arguments and arguments[0] in VERBS else None
    if verb is None and arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        from launcher.registry import unknown

        unknown("verb", arguments[0], VERBS)
    options = (_verb_parser(verb) if verb else _launch_parser()).parse_args(arguments[1:] if verb else arguments)
    if verb is None and not options.overrides:
        _launch_parser().print_help()
        return 0
    return (VERBS[verb][0] if verb else _launch)(options)


# -- verbs ----------------------------------------------------------------------------------------------------


def _launch(options: Namespace) -> int:
    """Submit or join one run."""
    from launcher import plan as planning
    from launcher import view
    from launcher.compose import resolve
    from launcher.rundir import RunDir

    if options.cfg:
        return _print_config(options, planning=False)
    spec, recipe = resolve(options.overrides, config_dir=options.config_dir)
    plan = planning.make(spec, recipe)
    if spec.cluster.kind != "local":
        raise ClusterError(
            "submitting to Slurm is not here yet; add cluster=local, or `sslrun plan` shows the batch script"
        )
    run = RunDir(Path(spec.runs) / spec.run_id)
    joined = (run.path / "spec.json").exists()
    screen = view.console()
    if joined:
        for change in run.spec().differences(spec):
            if not change.startswith(("runs:", "checksum:")):
                screen.print(f"kept as first submitted: {change}", markup=False, soft_wrap=True)
    else:
        run.create(spec, plan.to_json())
        if plan.waste:
            screen.print(f"wasteful: {plan.waste}", markup=False, soft_wrap=True)
    return _work(run, joined=joined, options=options)


def _resume(options: Namespace) -> int:
    """Go on with a run from its newest checkpoint."""
    run = _find(options)
    return _work(run, joined=True, options=options, force=options.force)


def _work(run: "RunDir", *, joined: bool, options: Namespace, force: bool = False) -> int:
    """See a local run through from wherever it stands, and say how it ended."""
    from launcher import local, view

    screen, state = view.console(), run.state()
    ends = [e for e in run.events() if e["event"] == "end"]
    if state == "done":
        view.closing(run, screen, _runs_option(run))
        return _answer(run, joined, options, 0)
    lives = run.generation()
    ended = [e["cause"] for e in ends if e["generation"] == lives]
    if ended and ended[-1] == "diverged" and not force:
        raise RunFailed(f"{ends[-1]['message']} (`sslrun resume {run.id} --force` tries all the same)")
    spec = run.spec()
    if not os.access(run.path, os.W_OK):
        raise InputError.of("runs", run.path.parent, "you cannot write there", "choose another folder with runs=PATH")
    # Why this life begins: what ended the one before; a life that left no word was killed.
    cause = "submitted" if not lives else ended[-1] if ended else "killed"
    screen.print(f"run {run.id} in {run.path}", soft_wrap=True, markup=False)
    with view.Watch(run, screen) as watch:
        outcome = local.run(run, spec, cause=cause, watch=watch)
    if outcome is None:
        holder = next((e for e in reversed(run.events()) if e["event"] == "start"), {})
        message = f"running already (process {holder.get('pid', '?')} on {holder.get('host', '?')})"
        if options.verb == "resume":
            raise InputError.of("RUN", run.id, f"{message}, and a run has one writer", f"`sslrun logs {run.id} -f`")
        screen.print(f"{run.id} is {message}; `sslrun logs {run.id} -f` follows it", soft_wrap=True, markup=False)
        return _answer(run, True, options, 0)
    if outcome.state == "done":
        view.closing(run, screen, _runs_option(run))
    else:
        screen.print(f"sslrun: {outcome.message}", soft_wrap=True, markup=False)
        if outcome.cause in ("stopped", "killed", "crash"):
            screen.print(f"go on with: sslrun resume {run.id}{_runs_option(run)}", soft_wrap=True, markup=False)
    return _answer(run, joined, options, outcome.exit_code)


def _plan(options: Namespace) -> int:
    """What would be submitted, and why."""
    from launcher import plan as planning
    from launcher.compose import resolve

    if options.cfg:
        return _print_config(options, planning=True)
    spec, recipe = resolve(options.overrides, config_dir=options.config_dir, planning=True)
    plan = planning.make(spec, recipe)
    if options.json:
        print(json.dumps(plan.to_json()))
        return 0
    from launcher import view

    screen = view.Console(highlight=False)
    view.plan(plan, screen)
    if spec.cluster.name == "generic":
        screen.print("No cluster is named: a generic one of 8 GPUs a node is assumed (cluster=NAME picks another).")
    if spec.data.name == "image_folder" and not spec.data.path:
        screen.print(f"data.path is not given yet; the size is the recipe's, {recipe.images:,} images.")
    return 0


def _status(options: Namespace) -> int:
    """All runs of a folder."""
    from launcher import rundir

    rows = []
    for run in rundir.every(_runs_folder(options)):
        try:
            rows.append(run.summary(digest=False))
        except InputError as error:  # one damaged run must not hide the others
            rows.append(_damaged(run, str(error)))
    if options.json:
        print(json.dumps(rows))
        return 0
    from launcher import view

    view.runs(rows, view.Console(highlight=False))
    return 0


def _damaged(run: "RunDir", message: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"restarts": {}, "lost_steps": 0, "evals": {}, "step": 0, "steps": 0, "checkpoint": None}
    return {"id": run.id, "path": str(run.path), "method": "?", "state": "failed", **empty, "message": message}


def _show(options: Namespace) -> int:
    """One run."""
    run = _find(options)
    if options.json:
        print(json.dumps(run.summary()))
        return 0
    from launcher import view

    view.show(run.summary(), view.Console(highlight=False))
    return 0


def _logs(options: Namespace) -> int:
    """What the ranks printed."""
    run = _find(options)
    logs = sorted((run.path / "logs").glob("rank*.log"), key=lambda p: int(p.stem[4:]))
    if not options.all:
        logs = [p for p in logs if p.stem == f"rank{options.rank}"]
    if not logs:
        raise InputError.of("--rank", options.rank, f"{run.id} has no log of it", "use --all, or start the run first")
    read = dict.fromkeys(logs, 0)
    while True:
        for log in logs:
            with log.open("rb") as file:
                file.seek(read[log])
                text = file.read()
            read[log] += len(text)
            for line in text.decode(errors="replace").splitlines():
                print(f"{log.stem}: {line}" if options.all else line, flush=True)
        if not options.follow or run.state() != "running":
            return 0
        time.sleep(0.5)


def _cancel(options: Namespace) -> int:
    """Stop a run at its next safe point."""
    from launcher.rundir import Ledger

    run = _find(options)
    if run.state() != "running":
        raise InputError(f"RUN={run.id}: it is {run.state()}, not running; there is nothing to cancel")
    start = [e for e in run.events() if e["event"] == "start"][-1]
    if start["host"] != os.uname().nodename:
        raise InputError(f"RUN={run.id}: it runs on {start['host']}; cancel it there")
    Ledger(run, start["generation"], "cancel").write("cancel", by=os.getpid())
    with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
        os.kill(start["pid"], signal.SIGTERM)
    while run.held():
        time.sleep(0.1)
    print(f"{run.id} is {run.state()}", file=sys.stderr)
    return _answer(run, False, options, 0)


def _export(options: Namespace) -> int:
    """The backbone as safetensors."""
    run = _find(options)
    from methods.export import export  # torch comes with it

    target = Path(options.out) if options.out else run.path / "backbone.safetensors"
    metadata = export(run, target)
    print(
        f"loads with strict=True into {metadata['load']}; {metadata['padding']}\ninput: {metadata['input']}",
        file=sys.stderr,
    )
    print(json.dumps({"file": str(target), **metadata}) if options.json else target)
    return 0


# -- parts of verbs ------------------------------------------------------------------------------------------------


def _find(options: Namespace) -> "RunDir":
    from launcher import rundir

    return rundir.find(options.run, _runs_folder(options))


def _runs_folder(options: Namespace) -> Path:
    folder = Path("runs")
    for text in options.overrides:
        key, _, value = text.partition("=")
        if key != "runs":
            raise InputError(f"{text}: this verb takes runs=FOLDER and nothing else")
        folder = Path(value)
    return folder.expanduser().absolute()


def _runs_option(run: "RunDir") -> str:
    """What a person must add so that the run is found from here."""
    return "" if run.path.parent == Path("runs").absolute() else f" runs={run.path.parent}"


def _answer(run: "RunDir", joined: bool, options: Namespace, code: int) -> int:
    if options.json:
        answer = {"id": run.id, "path": str(run.path), "state": run.state(), "job": None, "joined": joined}
        print(json.dumps(answer))
    return code


def _print_config(options: Namespace, *, planning: bool) -> int:
    from omegaconf import OmegaConf

    from launcher.compose import composed

    root, _ = composed(options.overrides, config_dir=options.config_dir, planning=planning)
    print(OmegaConf.to_yaml(root), end="")
    return 0


# -- the parser --------------------------------------------------------------------------------------------------


VERBS: dict[str, tuple[Callable[[Namespace], int], str]] = {
    "plan": (_plan, "sslrun plan method=deepercluster nodes=8"),
    "status": (_status, "sslrun status"),
    "show": (_show, "sslrun show deepercluster-demo"),
    "logs": (_logs, "sslrun logs deepercluster-demo -f"),
    "resume": (_resume, "sslrun resume deepercluster-demo"),
    "cancel": (_cancel, "sslrun cancel deepercluster-demo"),
    "export": (_export, "sslrun export deepercluster-demo --out backbone.safetensors"),
}


class _Parser(ArgumentParser):
    """argparse with our exit code and one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see `{self.prog} --help`")


def _launch_parser() -> ArgumentParser:
    parser = _Parser(
        "sslrun",
        description=ABOUT,
        epilog=_methods(),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(verb="launch")
    return _composing(parser)


def _methods() -> str:
    from launcher import registry

    return "methods:\n" + "\n".join(f"  {name:15} {registry.method(name).summary}" for name in registry.names())


def _composing(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--config-dir", type=Path, help="a folder with your own groups: method/, data/, cluster/")
    parser.add_argument("--cfg", action="store_true", help="print the composed config and stop")
    parser.add_argument("--json", action="store_true", help="the last line of stdout is JSON")
    return parser


def _verb_parser(verb: str) -> ArgumentParser:
    function, example = VERBS[verb]
    parser = _Parser(f"sslrun {verb}", description=function.__doc__, epilog=f"example: {example}", allow_abbrev=False)
    parser.set_defaults(verb=verb)
    if verb not in ("plan", "status"):
        parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value" if verb == "plan" else "runs=FOLDER")
    if verb == "plan":
        return _composing(parser)
    if verb == "logs":
        parser.add_argument("-f", "--follow", action="store_true", help="go on while the run does")
        parser.add_argument("--rank", type=int, default=0)
        parser.add_argument("--all", action="store_true", help="every rank, each line with its rank")
    if verb == "export":
        parser.add_argument("--out", help="the file to write; backbone.safetensors in the run's folder by default")
    if verb == "resume":
        parser.add_argument("--force", action="store_true", help="also after a divergence, which will probably recur")
    if verb != "logs":
        parser.add_argument("--json", action="store_true", help="the last line of stdout is JSON")
    return parser


if __name__ == "__main__":
    main()
