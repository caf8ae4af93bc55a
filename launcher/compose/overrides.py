"""One override as Hydra's grammar reads it, and what Hydra refuses in words for a person.

The grammar knows neither ~ nor letters outside ASCII, and takes = and ( for its own: none of which keeps a folder from
being called so. What it cannot read is text. What it reads as several values, or as a number where a field holds text,
needs quotes inside those of the shell: that is said with the words to type, or done.
"""

import dataclasses
import re
import shlex
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from launcher.errors import InputError
from launcher.spec import registry
from launcher.spec.schema import ClusterConfig, LaunchConfig

_TEXTS = {str, str | None}
_OPENS = re.compile(
    r"""['"\[{]|(choice|range|interval|glob|sort|shuffle|tag|extend_list|int|float|str|bool|json_str)\("""
)
_OPTIONS = "cluster.srun."  # as srun reads them: text, but for true and false
_NULL = re.compile(r"is not Optional|'None'|NoneType")
_SHAPE = re.compile(r"is not a ListConfig|Cannot merge (Dict|List)Config|Cannot assign \w+ to Dict")
_PART = re.compile(r"""[^\[\]{},'"]+""")  # of a list or a mapping, without quotes
_NAMED = re.compile(r"(\s*[\w-]+\s*:\s*)?(.*)", re.DOTALL)  # name: text


def parsed(text: str) -> Override:
    """Raises InputError for what cannot be read."""
    return _read(spelled(text))


def text_of(text: str) -> str:
    """The value of an override that is text, without the quotes that one for Hydra may have."""
    value = text.partition("=")[2]
    return str(parsed(text).value()) if value[:1] in ("'", '"') else value


@cache
def spelled(text: str) -> str:
    """The override in words that Hydra takes for what they say. Raises InputError where they can mean two things.

    >>> spelled("data.path=~/images (old)"), spelled("cluster.partition=2024_1"), spelled("nodes=2_000")
    ("data.path='~/images (old)'", "cluster.partition='2024_1'", 'nodes=2_000')
    """
    key, sign, value = text.partition("=")
    try:
        read = _read(text)
        found = None if read.is_sweep_override() else read.value()
        number = isinstance(found, bool | int | float) and not (isinstance(found, bool) and key.startswith(_OPTIONS))
        return quoted(key, value) if number and _is_text(key) else text
    except HydraException:
        if not sign or not value.strip(", ") or not _is_read(f"{key}=1"):
            raise refused(text, "not an override", _undashed(key, value) or "write key=value") from None
    if _OPENS.match(value):
        mended = _each_quoted(key, value)
        fix = f"close what it opens, or, if that is its name, type {as_one(text)}"
        fix = f"quote what it cannot read: type {in_shell(mended)}" if mended else fix
        raise refused(text, "not an override", fix)
    if "," in value:
        raise refused(text, "a comma separates several values", f"as one value type {as_one(text)}")
    return quoted(key, value)


def quoted(key: str, value: str) -> str:
    """The override whose value is this text, whatever is in it."""
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def as_one(text: str) -> str:
    """What to type in a shell so that the value of the override is one text."""
    return in_shell(quoted(*text.partition("=")[::2]))


def in_shell(text: str) -> str:
    """One word of a shell: between double quotes where nothing in it means something there."""
    return shlex.quote(text) if set('"$`\\!') & set(text) else f'"{text}"'


def several(text: str) -> InputError:
    """The error that a single run has one value of everything."""
    key, _, value = text.partition("=")
    kinds, fix = _types(key), "give one value"
    if "(" in value:  # of the grammar's own functions
        pass
    elif key in ("eval_after", "probes") or key.startswith(_OPTIONS) or any("list" in str(kind) for kind in kinds):
        fix = f"for a list type {shlex.quote(f'{key}=[{value}]')}"
    elif kinds & _TEXTS:
        fix = f"if that is one value type {as_one(text)}"
    return refused(text, "this is a sweep over several values", f"add --multirun, or {fix}")


def refused(text: str, reason: str, fix: str = "") -> InputError:
    """The error that this override is wrong."""
    key, sign, value = text.partition("=")
    return InputError.of(key, value if sign else ..., reason, fix)


def refusal(error: Exception) -> InputError:
    """The one line of a Hydra or OmegaConf error that tells a person something."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    reason, fix = lines[0], ""
    kinds, none = {getattr(kind, "__origin__", kind) for kind in _types(key)}, bool(_NULL.search(reason))
    if "could not be converted to" in reason:  # "Value 'abc' of type 'str' could not be converted to Float"
        fix = f"give one {reason.rpartition(' ')[2].lower()}"
    if "Cannot convert '" in reason and reason.partition(" to ")[2].startswith("string"):
        reason, fix = "it is text", "give one value"
    if (none or _SHAPE.search(reason)) and dict in kinds:
        reason, fix = "it is a mapping", f"write {key}.NAME=VALUE for each, or {key}={{}} for none"
    elif (none or _SHAPE.search(reason)) and list in kinds:
        example = "['module load cuda']" if list[str] in _types(key) else "[0.3,1]"
        reason, fix = "it is a list", f"give one like {example}"
    elif none:
        reason, fix = "it cannot be null", "leave it out"
    if key:
        return InputError.of(key, ..., reason, fix)
    return InputError(f"{reason}; {fix}" if fix else reason)


def _undashed(key: str, value: str) -> str:
    """What to write where somebody has typed a name with dashes before it, as programs take it; empty elsewhere."""
    group, dashes, name = re.fullmatch(r"(.*\.|)(-*)(.*)", key, re.DOTALL).groups()
    if not dashes or not group or not _is_read(f"{group}{name}=1"):
        return ""
    return f"write {group}{name}={value or 'VALUE'}" if len(name) > 1 else "write its long name, without dashes"


def _each_quoted(key: str, value: str) -> str:
    """The override with each text in a list or a mapping quoted; empty where it cannot be read then, either."""

    def text(part: re.Match) -> str:
        name, inner = _NAMED.fullmatch(part[0]).groups(default="")
        return part[0] if not inner or _is_read(f"{key}=[{inner}]") else name + quoted("", inner)[1:]

    mended = f"{key}={_PART.sub(text, value)}"
    return mended if _is_read(mended) else ""


def _is_read(text: str) -> bool:
    try:
        return bool(_read(text))
    except HydraException:
        return False


def _read(text: str) -> Override:
    return OverridesParser.create().parse_overrides([text])[0]


def _is_text(key: str) -> bool:
    """Whether what a field of the launch, its data or its cluster holds is text, which may look like a number."""
    group, _, field = key.lstrip("+~").partition(".")
    if group == "cluster" and field.startswith(("environment.", "srun.")):
        return True
    return group != "method" and bool(_types(key) & _TEXTS)


def _types(key: str) -> set:
    """Of the field, in all configs that may hold it."""
    group, _, field = key.lstrip("+~").partition(".")
    if not field:
        group, field = "", group
    data = registry.facts("data").DATA.values()
    methods = (registry.method(name).config for name in registry.names() if group == "method")
    kinds = {"": (LaunchConfig,), "cluster": (ClusterConfig,), "data": data, "eval_data": data, "method": methods}
    return {each.type for kind in kinds.get(group, ()) for each in dataclasses.fields(kind) if each.name == field}
