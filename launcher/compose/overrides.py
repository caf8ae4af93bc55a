"""One override as Hydra's grammar reads it, and what Hydra refuses in words for a person."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from launcher.errors import InputError


def parsed(text: str) -> Override:
    """Raises InputError for what Hydra cannot read."""
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException:
        fix = "write key=value, and quote values with spaces or commas"
        raise refused(text, "not an override", fix) from None


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
    if "could not be converted to" in reason:  # "Value 'abc' of type 'str' could not be converted to Float"
        fix = f"give one {reason.rpartition(' ')[2].lower()}"
    if "is not a ListConfig" in reason:
        reason, fix = "it is a list", "give one like [0.3,1]"
    if key:
        return InputError.of(key, ..., reason, fix)
    return InputError(f"{reason}; {fix}" if fix else reason)
