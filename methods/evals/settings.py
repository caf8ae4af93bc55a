"""What the settings of every protocol have in common. Imports no torch."""

import math
from typing import Any, ClassVar

from launcher.spec.fields import refuse


class Settings:
    """What can be asked of a protocol. Each has a subclass: a dataclass, with the papers' settings as defaults."""

    name: ClassVar[str]  # of its folder
    place: ClassVar[int]  # in lists that people read
    labels: ClassVar[bool] = True  # whether it needs them
    zero: ClassVar[tuple[str, ...]] = ()  # the numbers that may be 0; all others are positive

    def gathers(self) -> bool:
        """Whether one rank comes to hold the features of all images."""
        return False

    def check(self, backbone: str) -> None:
        """Raises InputError naming the first setting that cannot be, of any kind or for this backbone."""
        for name, value in vars(self).items():
            numbers = value if isinstance(value, list | tuple) else [value]
            self.refuse_unless(name, numbers, "it is empty", "give one value or more")
            zero = name in self.zero
            fix = f"give {'0 or more' if zero else 'a positive number'}"
            for number in numbers:
                fits = not isinstance(number, int | float) or (0 < number < math.inf) or (zero and number == 0)
                self.refuse_unless(name, fits, "out of range", fix)

    def refuse_unless(self, field: str, holds: Any, reason: str, fix: str) -> None:
        if not holds:
            refuse(self, field, reason, fix, group=f"{self.name}.")
