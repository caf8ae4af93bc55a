"""Pictures as SVG text: no library, no script, and colours that the page's style sheet gives (light or dark).

A picture is as wide as it is told to be, in CSS pixels; a page holds a wide one and a narrow one and shows either.
"""

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

TEXT = 12  # pixels, as all here
LETTER = 6.4  # width of one, about
LEFT, RIGHT, TOP = 46, 14, 8
DASHES = 5  # ways to draw a line in the style sheet
SLANT = 32  # degrees, of labels that do not fit side by side
LONGEST = 18  # letters of such a label
MOST_LINES, LINE = 3, 14  # of a label that is not slanted; pixels from one to the next


@dataclass(frozen=True)
class Mark:
    """One place on the axis of a panel. `value`: None where there is none; `note` says why, where somebody ought to."""

    label: str
    value: float | None
    scores: Sequence[float] = ()
    spread: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """Marks that belong together. `name`: where there are several in a panel. `dash`: how it is drawn, 0 solid."""

    name: str
    style: str  # a class of the style sheet: ours | theirs
    marks: Sequence[Mark]
    dash: int = 0

    @property
    def classes(self) -> str:
        return f"{self.style} dash{self.dash % DASHES}"


def panel(lines: Sequence[Line], width: int, height: int = 150) -> str:
    """Values over the places of an axis, evenly spaced; lines share a place by its label."""
    labels = list(dict.fromkeys(mark.label for line in lines for mark in line.marks))
    if len(lines) > 1 and all(map(_is_number, labels)):
        labels.sort(key=_as_number)
    gap = (width - LEFT - RIGHT) / max(1, len(labels))
    xs = {label: LEFT + gap * (place + 0.5) for place, label in enumerate(labels)}
    under, foot = _labels(xs, gap, height)
    scale = _Scale([v for line in lines for mark in line.marks for v in _extent(mark)], TOP, height)
    out = scale.rules(LEFT, width - RIGHT)
    for line in lines:
        out += _line(line, xs, scale)
    return _svg([*out, *_notes(lines, xs, gap, height), *under], width, height + foot)


def curve(steps: Sequence[float], values: Sequence[float | None], width: int, height: int = 90) -> str:
    """A number of a run over its steps; gaps where it is not a number."""
    scale = _Scale([v for v in values if v is not None], TOP, height)
    last = max(steps, default=1) or 1
    xs = [LEFT + (width - LEFT - RIGHT) * step / last for step in steps]
    out = scale.rules(LEFT, width - RIGHT, count=3)
    for part in _parts(xs, values):
        if len(part) == 1:
            out.append(f'<circle class="ours" cx="{part[0][0]:.1f}" cy="{scale(part[0][1]):.1f}" r="2.5"/>')
        else:
            out.append(f'<path class="ours thin" d="{_path((x, scale(v)) for x, v in part)}"/>')
    out += [_text(LEFT, height + 16, "0", "small"), _text(width - RIGHT, height + 16, f"step {last:,.0f}", "small end")]
    return _svg(out, width, height + 22)


@dataclass(frozen=True)
class Span:
    """A part of a run's life, in seconds since its beginning. `style`: waited | worked | lost, and how it ended."""

    start: float
    end: float
    style: str
    said: str


def timeline(spans: Sequence[Span], width: int) -> str:
    """A run's life as a bar; each span can be pointed at."""
    total = max((span.end for span in spans), default=0.0) or 1.0
    out = []
    for span in spans:
        x, wide = width * span.start / total, max(1.5, width * (span.end - span.start) / total)
        out.append(
            f'<rect class="{span.style}" x="{x:.1f}" y="2" width="{wide:.1f}" height="18" rx="1.5">'
            f"<title>{escape(span.said)}</title></rect>"
        )
    return _svg(out, width, 22)


LEVELS = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)  # percent, of `Ends`
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Ends:
    """When the lives of a simulated run end, in seconds, at LEVELS; some may be inf."""

    label: str
    seconds: Sequence[float]


def ends(rows: Sequence[Ends], width: int) -> str:
    """A hill for each row, as high as lives are dense there, from their 5 to their 95 %; a mark at half of them, and a
    bar from 10 to 90 %."""
    left, high = min(130, width // 3), 34
    known = [seconds for row in rows for seconds in row.seconds if seconds < math.inf]
    low, top = min(known, default=0.0), max(known, default=0.0)
    top = max(top, low + 1.0)
    unit, name = next(each for each in UNITS if top >= 2 * each[0] or each[0] == 1)

    def place(seconds: float) -> float:
        return left + (width - left - RIGHT) * (seconds - low) / (top - low)

    out = []
    for tick, text in ticks(low / unit, top / unit):
        x = place(tick * unit)
        out.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{high * len(rows):.1f}"/>')
        out.append(_text(x, high * len(rows) + 16, f"{text} {name}", "small middle"))
    for number, row in enumerate(rows):
        ground = high * (number + 1) - 6
        out.append(_text(left - 8, ground, row.label, "end"))
        if max(row.seconds) < math.inf:
            out += _hill([place(seconds) for seconds in row.seconds], ground, high - 12, row.label)
        else:
            out.append(_text(left + 4, ground, "some lives do not end", "small"))
    return _svg(out, width, high * len(rows) + 22)


def _hill(xs: Sequence[float], ground: float, high: float, label: str) -> list[str]:
    """xs: at LEVELS."""
    pairs = [*itertools.pairwise(zip(xs, LEVELS, strict=True))]
    dense = [(share - before) / max(1.0, after - x) for (x, before), (after, share) in pairs]
    tops = [
        ((x + after) / 2, ground - high * each / max(dense))
        for ((x, _), (after, _)), each in zip(pairs, dense, strict=True)
    ]
    middle = xs[LEVELS.index(50)]
    return [
        f'<path class="ours thin" d="{_path([(xs[0], ground), *tops, (xs[-1], ground)])}"/>',
        f'<line class="ours bar" x1="{xs[1]:.1f}" x2="{xs[-2]:.1f}" y1="{ground}" y2="{ground}"/>',
        f'<circle class="ours" cx="{middle:.1f}" cy="{ground}" r="3.5"><title>{escape(label)}</title></circle>',
    ]


class _Scale:
    """A value -> its height on the picture."""

    def __init__(self, values: Sequence[float], top: float, bottom: float):
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        self._low, self._high, self._top, self._bottom = low - pad, high + pad, top, bottom

    def __call__(self, value: float) -> float:
        return self._bottom - (value - self._low) / (self._high - self._low) * (self._bottom - self._top)

    def rules(self, left: float, right: float, count: int = 4) -> list[str]:
        out = []
        for tick, text in ticks(self._low, self._high, count):
            y = self(tick)
            out.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(_text(left - 8, y + 4, text, "small end"))
        return out


def ticks(low: float, high: float, count: int = 4) -> list[tuple[float, str]]:
    """Round numbers between `low` and `high`, about `count`, and how they are written."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= 0.75 * rough)
    first = math.ceil(low / step - 1e-9)
    found = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if abs(step / power - 2.5) < 1e-9 else 0))
    largest = max(map(abs, found), default=0)
    if digits > 4 or largest >= 1e6:
        return [(tick, f"{tick:.2g}") for tick in found]
    return [(tick, f"{tick:,.{digits}f}") for tick in found]


def _extent(mark: Mark) -> list[float]:
    if mark.value is None:
        return []
    spread = mark.spread or 0.0
    return [mark.value - spread, mark.value + spread, *mark.scores]


def _line(line: Line, xs: Mapping[str, float], scale: _Scale) -> list[str]:
    style, out = line.classes, []
    marks = sorted(line.marks, key=lambda mark: xs[mark.label])
    places = [xs[mark.label] for mark in marks]
    for part in _parts(places, [mark.value for mark in marks]):
        out.append(f'<path class="{style}" d="{_path((x, scale(v)) for x, v in part)}"/>')
    for x, mark in zip(places, marks, strict=True):
        if mark.value is None:
            continue
        for score in mark.scores if len(mark.scores) > 1 else ():
            out.append(f'<circle class="{style} seed" cx="{x:.1f}" cy="{scale(score):.1f}" r="2"/>')
        if mark.spread:
            top, low = scale(mark.value + mark.spread), scale(mark.value - mark.spread)
            out.append(f'<line class="{style} bar" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{low:.1f}"/>')
        said = f"{mark.label}: {mark.value:.2f}" + (f" ± {mark.spread:.2f}" if mark.spread is not None else "")
        out.append(
            f'<circle class="{style}" cx="{x:.1f}" cy="{scale(mark.value):.1f}" r="3.5">'
            f"<title>{escape(said)}</title></circle>"
        )
    return out


def _notes(lines: Sequence[Line], xs: Mapping[str, float], gap: float, bottom: float) -> list[str]:
    """Why there is nothing at a place, just above the axis: in words where they fit."""
    letters, out = int((gap - 4) / (0.93 * LETTER)), []
    for label, x in xs.items():
        marks = [mark for line in lines for mark in line.marks if mark.label == label]
        notes = [mark.note for mark in marks if mark.note]
        if not notes or any(mark.value is not None and mark.note for mark in marks):
            continue
        rows = textwrap.wrap(notes[0], max(1, letters), break_long_words=False)
        rows = rows if max(map(len, rows)) <= letters else ["×"]
        out += [
            _text(x, bottom - 4 - 12 * (len(rows) - 1 - number), row, "small middle") for number, row in enumerate(rows)
        ]
    return out


def _as_number(label: str) -> float:
    return float(label.replace(",", ""))


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(_as_number(label))
    except ValueError:
        return False


def _parts(xs: Sequence[float], values: Sequence[float | None]) -> Iterable[list[tuple[float, float]]]:
    """Stretches without a gap."""
    part: list[tuple[float, float]] = []
    for x, value in zip(xs, values, strict=True):
        if value is not None:
            part.append((x, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _labels(xs: Mapping[str, float], gap: float, top: float) -> tuple[list[str], int]:
    """(labels below the axis, how much room they take): in as many lines as their words ask for, or slanted."""
    letters = int((gap - 8) / LETTER)
    wrapped = {label: textwrap.wrap(label, max(1, letters), break_long_words=False) for label in xs}
    rows = max((len(lines) for lines in wrapped.values()), default=1)
    if rows <= MOST_LINES and all(len(line) <= letters for lines in wrapped.values() for line in lines):
        placed = [(xs[label], number, line) for label, lines in wrapped.items() for number, line in enumerate(lines)]
        return [_text(x, top + 18 + LINE * number, line, "middle") for x, number, line in placed], 10 + LINE * rows
    angle = math.radians(SLANT)
    longest = min(LONGEST, int((LEFT + gap / 2) / (LETTER * math.cos(angle))))
    turned = [
        f'<text class="end" transform="translate({x + 4:.1f} {top + 16:.1f}) rotate(-{SLANT})">'
        f"{escape(label if len(label) <= longest else label[: longest - 1] + '…')}</text>"
        for label, x in xs.items()
    ]
    return turned, 24 + int(longest * LETTER * math.sin(angle))


def _svg(parts: Sequence[str], width: int, height: float) -> str:
    head = f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" aria-hidden="true">'
    return "\n".join([head, *parts, "</svg>"])
