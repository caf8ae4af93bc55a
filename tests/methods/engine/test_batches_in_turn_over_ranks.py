"""What a method gets beside its images, and patches as its images: the same for each sample and in each place of a
global batch, on any number of ranks and loader workers, and where an image is broken."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.errors import InputError
from launcher.runtime.dist import World
from methods.augment.operators import standardise
from methods.augment.views import PatchesView
from methods.data.dataset import BrokenImage
from methods.data.loader import Batch, Request, batches
from methods.data.sampler import Permutation
from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.sets.photos.spec import PhotosData
from methods.data.sets.shards.spec import ShardsData
from methods.data.spec import check_columns
from methods.engine.job import Job
from methods.engine.loading import Loading

GLOBAL, IMAGES, EPOCH = 8, 27, 3
STEPS = IMAGES // GLOBAL
EVERYTHING = ("label", "position", "text")
VIEW = PatchesView(seed=7, resize=31, grid=3, cell=9, size=6, grey=0.5)


class Captioned:
    """Images in memory with a label and a caption or two each; some of them cannot be decoded, or have no caption."""

    channels, classes = 3, ("even", "odd")

    def __init__(self, broken=(), wordless=()):
        self.labels = np.arange(IMAGES, dtype=np.int64) % 2
        self._broken, self._wordless = broken, wordless

    def __len__(self):
        return IMAGES

    def name_of(self, index):
        return f"{index}.png"

    def image(self, index):
        if index in self._broken:
            raise BrokenImage(self.name_of(index), "it is broken")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 30 + index, 3), np.uint8))

    def text(self, index):
        if index in self._wordless:
            raise BrokenImage(self.name_of(index), "no text beside it")
        return f"Bild {index}: ein Kätzchen\n" * (1 + index % 2)


def job(dataset, world=None, workers=0, passes=1, config=None):
    """What `Job.batches_in_turn` needs of one."""
    world = world or World(0, 1, torch.device("cpu"))
    spec = SimpleNamespace(seed=5, data=config or PhotosData(max_broken=1.0), method=SimpleNamespace(workers=workers))
    made = Job.__new__(Job)
    made.dataset, made.world, made.spec = dataset, world, spec
    made.layout = SimpleNamespace(accumulation=passes, per_gpu_batch=GLOBAL // passes // world.size)
    ledger = SimpleNamespace(write=lambda *_, **__: None)
    made.load = Loading(spec, world, dataset, ledger, lambda _: contextlib.nullcontext())
    return made


def rows(job, columns=EVERYTHING, steps=STEPS):
    """{step: [(sample, label, position, text, patches as bytes, the same standardised) of each row in turn]}"""
    told = {}
    for step, passes in enumerate(job.batches_in_turn(VIEW, EPOCH, 0, steps, columns)):
        assert len(passes) == job.layout.accumulation
        told[step] = []
        for batch in passes:
            assert batch.images.shape == (job.layout.per_gpu_batch, 9, 3, 6, 6) and batch.images.dtype == torch.uint8
            assert set(batch.columns) == set(columns)
            assert all(batch.columns[name].dtype == torch.int64 for name in ("label", "position"))
            seen = standardise(batch.images)
            told[step] += zip(
                batch.ids.tolist(), *(list(map(_plain, batch.columns[name])) for name in EVERYTHING),
                *([each.numpy().tobytes() for each in images] for images in (batch.images, seen)), strict=True,
            )  # fmt: skip
    return told


def _plain(value):
    return value if isinstance(value, str) else int(value)


def in_a_world(world):
    """{(loader workers, passes a step): this rank's rows}"""
    return {case: rows(job(Captioned(), world, *case)) for case in ((0, 1), (2, 2))}


@pytest.fixture(scope="module")
def worlds(ranks):
    return ranks((1, 2, 4), in_a_world)


def test_columns_and_patches_are_the_same_on_any_number_of_ranks_workers_and_passes(worlds):
    expected = worlds[1][0][0, 1]
    for size, told in worlds.items():
        for case in told[0]:
            together = {step: [row for rank in told for row in rank[case][step]] for step in range(STEPS)}
            assert together == expected, (size, case)


def test_columns_say_of_each_sample_what_the_data_set_says_and_where_it_lies(worlds):
    dataset, order = Captioned(), Permutation(IMAGES, job(Captioned()).seed_for("order", EPOCH))
    for step, told in worlds[1][0][0, 1].items():
        ids = order(np.arange(GLOBAL * step, GLOBAL * (step + 1))).tolist()
        assert [row[:4] for row in told] == [
            (sample, sample % 2, position, dataset.text(sample)) for position, sample in enumerate(ids)
        ]
        assert [row[4] for row in told] == [VIEW(dataset.image(i), i, EPOCH).tobytes() for i in ids]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("why", ["broken", "wordless"])
def test_the_columns_of_a_stand_in_go_with_its_patches(workers, why):
    whole = rows(job(Captioned()))
    bad = {whole[0][0][0], whole[1][3][0], whole[1][4][0]}
    for step, told in rows(job(Captioned(**{why: bad}), workers=workers)).items():
        good = [row for row in whole[step] if row[0] not in bad]
        assert [row for row in told if row in good] == told and {row[0] for row in told} == {row[0] for row in good}
        assert [row for row, before in zip(told, whole[step], strict=True) if before[0] not in bad] == good


def test_without_columns_nothing_travels_and_no_text_is_read():
    dataset = Captioned(wordless=range(IMAGES))
    for (batch,) in job(dataset).batches_in_turn(VIEW, EPOCH, 0, STEPS):
        assert batch.columns == {} and not batch.broken


def test_rows_that_are_left_out_take_their_columns_with_them():
    wanted = [Request(np.array(ids), 0, {"ten": 10 * np.array(ids)}, text=True) for ids in ([0, 1, 2], [1])]
    some, none = batches(Captioned(broken={1}), VIEW, wanted, replace_broken=False)
    assert some.ids.tolist() == [0, 2] and some.columns["text"] == [Captioned().text(i) for i in (0, 2)]
    assert none.columns["text"] == [] and none.columns["ten"].shape == (0,) and len(none.ids) == 0


def test_pinning_leaves_texts_as_they_are(monkeypatch):
    """Without a GPU nothing is pinned: what PyTorch's thread does to a batch is looked at by itself."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    ((batch,), *_) = job(Captioned()).batches_in_turn(VIEW, EPOCH, 0, 1, EVERYTHING)
    pinned = pin_memory(batch)
    assert isinstance(pinned, Batch) and pinned.columns["text"] == batch.columns["text"]
    assert all(torch.equal(pinned.columns[name], batch.columns[name]) for name in ("label", "position"))


UNLABELLED = ImageFolderData(path="/somewhere", labels="none")


def test_a_data_set_without_labels_is_refused_in_one_line_before_and_when_it_is_read():
    dataset = Captioned()
    dataset.labels = None
    line = (
        "data=image_folder: it has no labels (labels=none), and the method learns from them; "
        "give labelled images: data=image_folder data.path=/path/to/them"
    )
    with pytest.raises(InputError) as told:
        job(dataset, config=UNLABELLED).batches_in_turn(VIEW, 0, 0, 1, ("label",))
    assert str(told.value) == line
    with pytest.raises(InputError) as told:
        check_columns(UNLABELLED, ("label", "position"))
    assert str(told.value) == line
    check_columns(UNLABELLED, ("position",))
    check_columns(PhotosData(), ("label", "position"))
    with pytest.raises(InputError, match=r"^data=photos: it has no labels \(none were found beside its images\)"):
        job(dataset).batches_in_turn(VIEW, 0, 0, 1, ("label",))


def test_a_data_set_without_texts_is_refused_in_one_line_before_and_when_it_is_read():
    fix = "give images with a KEY.txt beside each KEY.jpg: data=image_folder data.path=/path/to/them"
    for refused in (
        lambda: job(SimpleNamespace(labels=None)).batches_in_turn(VIEW, 0, 0, 1, ("text",)),
        lambda: check_columns(PhotosData(), ("text",)),
    ):
        with pytest.raises(InputError) as told:
            refused()
        reason = "it has no texts (such a data set keeps none), and the method learns from them"
        assert str(told.value) == f"data=photos: {reason}; {fix}"
    with pytest.raises(InputError, match=r"^data=shards: it has no texts"):
        check_columns(ShardsData(), ("text",))
    check_columns(UNLABELLED, ("text",))
    silent = job(Captioned(wordless=range(IMAGES)))
    with pytest.raises(InputError, match=r"\(27 images were tried, the first 0\.png: no text beside it\)"):
        silent.batches_in_turn(VIEW, 0, 0, 1, ("text",))
    assert rows(job(Captioned(wordless={0})))[0]


def test_a_column_that_is_not_known_is_named():
    with pytest.raises(
        ValueError, match=r"columns='labels': there is no such column; choose from label, position, text"
    ):
        job(Captioned()).batches_in_turn(VIEW, 0, 0, 1, ("labels",))
