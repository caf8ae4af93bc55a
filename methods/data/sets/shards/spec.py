"""Images in tars, as far as the launcher knows them."""

import os
import shlex
from dataclasses import dataclass, field

from launcher.errors import InputError
from launcher.spec.fields import later
from methods.data import splits, tars
from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, folder_of, wrong

LABELS = ("auto", "cls", "none")


@dataclass
class ShardsData(DataSet):
    """Images in tars of WebDataset's layout, with an index beside them; `methods.data.shards` says what are its labels.
    `stage`: a folder of each node's own, such as $TMPDIR, to which the tars are copied first."""

    name: str = "shards"
    path: str | None = None
    labels: str = "auto"
    splits: str = later("auto")
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})
    stage: str | None = field(default=None, metadata={"science": False})

    def check(self, field: str, *, at_hand: bool) -> None:
        if self.labels not in LABELS:
            raise splits.unknown_labels(field, self.labels, LABELS)
        splits.check_splits(field, self.splits)
        if self.stage is not None and not self.stage.startswith(("/", "$")):
            reason = "it is relative, and is to be a folder of every node"
            fix = "give it from the root on, or as '$TMPDIR'"
            raise InputError.of(f"{field}.stage", repr(self.stage), reason, fix)
        if at_hand:
            self._check_tars(field)

    def no_labels(self) -> str | None:
        if self.labels == "none" or not self.path:
            return f"labels={self.labels}"
        try:
            found = tars.fitting(splits.split_folders(absolute(self.path), self.splits)[0])[0]
        except OSError:
            return f"{self.path!r} cannot be read"
        return "not every image has a .cls member" if found and not found[0][1]["labelled"] else None

    def _check_tars(self, field: str) -> None:
        path, unknown = folder_of(self.path, field, "a folder of .tar files"), 0
        train, test = splits.split_folders(path, self.splits)
        for folder in filter(None, (train, test)):
            try:
                found, problem = tars.fitting(folder)
                if not (found or problem):
                    unknown += sum(os.stat(os.path.join(folder, name)).st_size for name in tars.names(folder))
            except OSError as error:
                problem = f"cannot read {error.filename!r} ({error.strerror})", "make it readable"
            if problem:
                reason, fix = problem
                where = "" if folder == path else f" (in its {os.path.basename(folder)}/)"
                raise wrong(field, self.path, reason + where, fix)
        mixed = splits.pair(tars.names(train)) if test is None and self.splits == "auto" else None
        if mixed:
            reason = f"{mixed[0]!r} and {mixed[1]!r} look like two splits, and the images of both would be trained on"
            held = splits.HELD_OUT[0]
            fix = f"move them into train/ and {held}/, or say {field}.splits=none where all are to train"
            raise wrong(field, self.path, reason, fix)
        if unknown > tars.INDEXED_ALONE:
            reason = f"no index yet, and {unknown / 1e9:,.0f} GB of tars would keep all ranks waiting"
            raise wrong(field, self.path, reason, f"run `sslrun shards {shlex.quote(path)}` first")
