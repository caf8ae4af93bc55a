#!/bin/sh
# benchmarks/gpu.sh          everything that a GPU has to show, in eight minutes at most on one H200; JSON and logs in $OUT
#
#     OUT=FOLDER             where it writes; benchmarks/out by default
#     PYTHON=COMMAND         a Python with a torch that knows the GPU, and the rest of requirements.lock; the one of
#                            .venv by default, or python3 where there is none
#     WHEELS=FOLDER          packages that this Python lacks, for a machine without a network: they are put into a folder
#                            of their own and found before all others. Made where there is a network, for the Python
#                            over there, for example:
#         pip wheel --no-deps -w .wheels antlr4-python3-runtime==4.9.3
#         pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d .wheels \
#             hydra-core omegaconf==2.3.1 submitit hydra-submitit-launcher lightly lightly-utils aenum pycocotools faiss-cpu
#     DEVICE=cpu SMALL=1     shows on a CPU that every part runs, and nothing else
#     PARTS="kmeans saves"   some of them
#
# Each part is a process of its own with a time limit of its own: one that hangs or fails leaves the others, and is named
# at the end and in parts.json. lightly and flash-kmeans are measured where they can be imported. The last part writes
# the tables of docs/benchmarks.md to table.md.

cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-benchmarks/out}
DEVICE=${DEVICE:-cuda}
if [ -z "$PYTHON" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=$PWD/.venv/bin/python
fi
mkdir -p "$OUT" || exit 1
OUT=$(cd "$OUT" && pwd)
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$WHEELS" ]; then
    site=$(mktemp -d) && "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit 1
    PYTHONPATH=$site:$PYTHONPATH
fi
export PYTHONPATH PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
small=${SMALL:+--small --turns 2} steps=${SMALL:+--length 2}
times=1 # of its limit that a part may take
[ -n "$SMALL" ] && times=10
failed= rows=

# part NAME SECONDS COMMAND ...: its output goes to NAME.log, and is shown.
part() {
    name=$1 limit=$2
    shift 2
    case " ${PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
    limit=$((limit * times))
    began=$(date +%s)
    echo "== $name"
    rm -f "$OUT/$name.json" # of another time
    timeout -k 10 "$limit" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    tail -n 30 "$OUT/$name.log"
    took=$(($(date +%s) - began))
    [ $code -eq 0 ] || failed="$failed $name"
    rows="$rows${rows:+, }{\"part\": \"$name\", \"code\": $code, \"seconds\": $took, \"limit\": $limit}"
    echo "[$rows]" >"$OUT/parts.json"
}

bench() {
    name=$1 limit=$2 script=$3
    shift 3
    part "$name" "$limit" "$PYTHON" "benchmarks/$script" "$@" --json "$OUT/$name.json"
}

part versions 30 "$PYTHON" benchmarks/gpu_versions.py "$OUT/versions.json"
part tests 60 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu --junitxml "$OUT/tests.xml" \
    $(grep -rl "pytest.mark.gpu" tests --include="test_*.py")
bench kmeans 90 kmeans.py --only gpu --device "$DEVICE" ${SMALL:+--share 4000x32x40}
bench bf16 90 gpu_steps.py --device "$DEVICE" $small $steps
bench photometrics 30 gpu_photometrics.py --device "$DEVICE" $small
bench saves 50 saves.py --device "$DEVICE" --turns 3 ${SMALL:+--gb 0.05 --turns 1}
bench fp16 40 gpu_steps.py --device "$DEVICE" --turns 5 $small $steps --precision fp16
bench compiled 80 gpu_steps.py simclr dino --device "$DEVICE" --turns 5 $small $steps --compile
part table 10 "$PYTHON" benchmarks/gpu_table.py "$OUT"

echo "parts that failed:${failed:- none}; all is in $OUT"
[ -z "$failed" ]
