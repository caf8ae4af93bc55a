"""cluster.setup -> lines of bash: each item in the job's own shell, and a word about the first one that fails. Pure."""

import hashlib
import shlex
from collections.abc import Sequence

UNREADY = "SSLRUN_UNREADY"  # tells the job's Python which item failed, and with which words
RECORDED = '"$BASH" "$0" "$said"; exit $?'  # the same script again, which then starts the job's Python for nothing else
GIVEN_UP = "exit 3"

# A command may take several items, as an `if` does: it is whole when bash can read it within braces, which quotes, a
# here-document or a backslash would swallow if they were open.
SHELL = """\
# cluster.setup: what an item sets stays; one that ends with an error, or ends the shell, ends the start. What stands
# around the items is found with `command -p` whatever they make of PATH.
sslrun_text= sslrun_theirs= sslrun_failed=${1:-}
sslrun_item() {
    [ -z "$sslrun_failed" ] || return
    [ "$sslrun_text" ] || sslrun_first=$1
    sslrun_text+=${sslrun_text:+$'\\n'}$2
    (eval "sslrun_whole() { :"$'\\n'"$sslrun_text"$'\\n}') 2>/dev/null || return
    local replaces='^[[:space:]]*exec[[:space:]]+[^[:space:]0-9<>&{#]' # by a program: nothing here would see its end
    [[ ! $sslrun_text =~ $replaces ]] || sslrun_fail "would take the place of the job's shell" "leave out \\`exec\\`"
    sslrun_size=$(command -p stat -Lc %s /proc/$$/fd/1 2>/dev/null) || sslrun_size=0
}
sslrun_ended() {
    local code=$?
    [ "$code" != 143 ] || command -p sleep 2 # where Slurm ends the whole job, this shell is told right after
    [ "$code" = 0 ] || sslrun_fail "ended with $code"
    sslrun_text=
    [[ $(trap -p EXIT) = *sslrun_left* ]] || { sslrun_theirs=$(trap -p EXIT); trap sslrun_left EXIT; }
}
sslrun_fail() {
    set +eux
    local item=${sslrun_text%%$'\\n'*} said=$2
    [ "$item" = "$sslrun_text" ] || item+=" ..."
    if [ -z "$said" ] && [ -f /proc/$$/fd/1 ]; then # neither blank lines nor those of set -x
        said=$(exec 2>/dev/null; command -p tail -c "+$((sslrun_size + 1))" /proc/$$/fd/1 |
            command -p grep -avE '^\\s*$|^[+]+ ' | command -p tail -n 1)
    fi
    said=${said#"$BASH: line "*: } said=${said#"$0: line "*: }
    [ "${#item}" -le 80 ] || item=${item:0:77}...
    said="${SLURMD_NODENAME:-$HOSTNAME}: cluster.setup[$sslrun_first] \\`$item\\` $1${said:+: ${said:0:300}}"
    echo "sslrun: $said"
    [ -z "${3:-}" ] || (eval "$sslrun_theirs"; exit "$3") # bash does not heed a trap for its end that is set only then
    sslrun_untrap
    sslrun_stop
}
sslrun_left() {
    local code=$?
    [ -z "$sslrun_text" ] || sslrun_fail "left the shell with $code" "" "$code"
}
sslrun_untrap() { # what the items themselves have set stays
    [[ $(trap -p EXIT) != *sslrun_left* ]] || { trap - EXIT; eval "$sslrun_theirs"; }
    [[ $(trap -p TERM) != *"exit 143"* ]] || trap - TERM
}
trap sslrun_left EXIT
trap 'trap - EXIT; exit 143' TERM # that is Slurm, and no item's fault"""
# What is open at the end.
OVER = """\
[ -z "$sslrun_text" ] || sslrun_fail "is no whole command" "$("$BASH" -n <<<"$sslrun_text" 2>&1 | command -p head -n 1)"
sslrun_untrap"""


def mark(items: Sequence[str]) -> str:
    """Name of a file that says, in a submission's folder, that these items were done once."""
    return f"did-{hashlib.sha256(repr(tuple(items)).encode()).hexdigest()[:16]}"


def told(items: Sequence[str]) -> list[str]:
    """What tells the job's Python, in whose `folder` the code lies; code of before would train all the same."""
    known = f'[ -f "$folder/code/launcher/plan/setup.py" ] || exit 3; export {UNREADY}="$sslrun_failed"'
    done = f'command -p touch "$folder/{mark(items)}" || :'
    return [f'if [ "$sslrun_failed" ]; then {known}; else {done}; fi'] if items else []


def lines(items: Sequence[str], then: str) -> list[str]:
    """What runs `items`, one after the other; none where there are none. then: once one failed, RECORDED or
    GIVEN_UP."""
    if not items:
        return []
    taken = [
        f'if sslrun_item {index} {shlex.quote(item)}; then eval "$sslrun_text"; sslrun_ended; fi'
        for index, item in enumerate(items)
    ]
    return [SHELL, f"sslrun_stop() {{ {then}; }}", *taken, OVER]
