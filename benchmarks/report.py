"""python benchmarks/report.py --runs 200        under a minute, and 40 MB below --folder while it works.

What `sslrun report` takes of a sweep of many runs that have ended, with the start of Python: copies of a real tiny
run's files, each under the identity of a point of the sweep, with two preemptions' worth of ledger. Then of one run
with a long file of metrics. Limit: 3 s for 200 runs.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from status import SSLRUN, seconds

from launcher.run.folder import RunDir
from launcher.sweep import asked, record

LIMIT_SECONDS = 3.0
METRICS = 100_000  # lines of the long run: a row every ten steps of a million
TABLE = """
paper: Nobody
table: Table 1
claim: None.
numbers: top-1 (%)
method: rotnet
axis: learning rate
sets: method.lr={value}
scales:
  paper: {metric: knn.trained, gpu_hours: 1}
  demo: {metric: knn.trained, minutes: 1}
  tiny: {metric: knn.trained, minutes: 1}
points:
"""


def populate(folder: Path, config_dir: Path, count: int) -> Path:
    """A sweep of `count` runs, ten seeds a point, as finished runs leave them but for their weights. Returns one."""
    runs = f"runs={folder}"
    command = [SSLRUN, "method=rotnet", "recipe=tiny", runs, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    model = RunDir(json.loads(done.stdout.splitlines()[-1])["path"])
    kept = [f for f in model.path.rglob("*") if f.suffix in (".json", ".jsonl", ".log") and f.is_file()]
    contents = {f.relative_to(model.path): f.read_bytes() for f in kept if f.name != "spec.json"}
    file = config_dir / "sweeps" / "nobody" / "rates.yaml"
    file.parent.mkdir(parents=True)
    points = (f"  - {{value: {0.001 * (1 + n):.3f}, paper: {50 + n}}}\n" for n in range(max(1, count // 10)))
    file.write_text(TABLE + "".join(points))
    wanted = asked.read(["sweep=nobody/rates", "recipe=tiny", f"seed=range(0,{min(10, count)})", runs], config_dir)
    members, _ = asked.members(wanted, config_dir)
    for member in members:
        path = folder / member.point.spec.run_id
        for name, content in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        for generation in (2, 3):  # two more starts
            for name, content in contents.items():
                if name.parent.name == "events" and name.name.startswith("0001"):
                    text = content.decode().replace('"generation": 1', f'"generation": {generation}')
                    (path / "events" / name.name.replace("0001", f"{generation:04d}")).write_text(text)
        (path / "spec.json").write_text(json.dumps(member.point.spec.to_json(), indent=1))
    found = [RunDir(folder / member.point.spec.run_id) for member in members]
    rows = [asked.described(wanted, member) for member in members]
    record.record([], [member.point for member in members], found, rows)
    return found[0].path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make them; the system's for temporary files by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, config_dir = Path(name) / "runs", Path(name) / "config"
        one = populate(folder, config_dir, options.runs)
        lines = (f'{{"step": {10 * n}, "time": 0.0, "loss": 1.0, "lr": 0.1}}\n' for n in range(METRICS))
        (one / "metrics.jsonl").write_text("".join(lines))
        words = ["sweep=nobody/rates", "recipe=tiny", f"runs={folder}", "--config-dir", str(config_dir)]
        measured = {
            f"report, {options.runs:,} runs": [SSLRUN, "report", *words],
            "report --json": [SSLRUN, "report", *words, "--json"],
            f"report RUN, {METRICS:,} rows": [SSLRUN, "report", str(one)],
            "sweep list": [SSLRUN, "sweep", "list", f"runs={folder}", "--config-dir", str(config_dir)],
        }
        told = []
        for what, command in measured.items():
            taken = [seconds(command) for _ in range(options.turns)]
            wall, work = (statistics.median(column) for column in zip(*taken, strict=True))
            over = "   over the limit" if what.startswith("report,") and wall > LIMIT_SECONDS else ""
            told.append(f"{what:26} {wall:5.2f} s  {min(taken)[0]:5.2f} s  {work:5.2f} s{over}")
        print(f"{'':26} median  fastest      CPU", *told, sep="\n")


if __name__ == "__main__":
    main()
