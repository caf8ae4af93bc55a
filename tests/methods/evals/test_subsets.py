"""A share of each class, and a list: the same images whoever asks, and what is not there is told by its line."""

import errno
import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from away import install

from launcher.errors import InputError, Unreadable
from launcher.run import waiting
from methods.evals import subsets
from methods.evals.logistic.spec import Logistic
from methods.evals.sgd.spec import Sgd
from methods.evals.subject import Subject
from methods.evals.subsets import chosen, listed, positions, share_of_each

LABELS = np.array([2, 0, 1, 0, 0, 2, 0, 2, 0, 0, 0, 2, 0, 0, 2] * 4)  # 36, 4 and 20 of a class


def test_a_share_is_of_each_class_and_at_least_one_image():
    counts = {share: np.bincount(LABELS[share_of_each(LABELS, share, int)]).tolist() for share in (0.5, 0.1, 0.001)}
    assert counts == {0.5: [18, 2, 10], 0.1: [4, 1, 2], 0.001: [1, 1, 1]}


def test_a_smaller_share_is_part_of_a_larger_one():
    shares = [set(share_of_each(LABELS, share, lambda label: 7 + label)) for share in (0.02, 0.05, 0.1, 0.3, 0.9)]
    assert all(less < more for less, more in pairwise(shares))


def test_the_seed_chooses_within_a_class_alone():
    first, second = (share_of_each(LABELS, 0.25, seed) for seed in (lambda label: 1, lambda label: 1 + (label == 2)))
    assert first.tolist() == sorted(first) and first.dtype == np.int64
    changed = set(first) ^ set(second)
    assert changed and set(LABELS[list(changed)]) == {2}


def test_whichever_protocol_asks_a_share_is_of_the_same_images():
    dataset = SimpleNamespace(labels=LABELS)
    assert positions(dataset, Sgd(), hash) is None
    asked = []
    for settings in (Sgd(share=0.1), Logistic(share=0.1)):
        positions(dataset, settings, lambda *given: asked.append(given) or 5)
    assert asked == 2 * [("subset", 0), ("subset", 1), ("subset", 2)]


class Named:
    """As much of a data set as its images' names."""

    names = (
        "train/cat/1.jpg",
        "train/cat/2.jpg",
        "train/dog/1.jpg",
        "train/dog/3 4.jpg",
        "a.tar: 7.png",
        "a.tar: b/8.png",
    )

    def __len__(self):
        return len(self.names)

    def name_of(self, index):
        return self.names[index]


def of_list(folder, text):
    (folder / "list.txt").write_bytes(text)
    return listed(Named(), str(folder / "list.txt"), "sgd.subset")


def test_a_list_names_images_by_their_path_or_its_last_part(tmp_path):
    found = of_list(tmp_path, b"8.png\r\ntrain/dog/1.jpg\n\n3 4.jpg\n7.png\n2.jpg\ntrain/cat/2.jpg\n")
    assert found.tolist() == [1, 2, 3, 4, 5] and found.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            b"2.jpg\n\nwolf/1.jpg\nbear.jpg\n",
            "line 3: no image is called wolf/1.jpg; give names such as train/cat/1.jpg",
        ),
        (b"2.jpg\n1.jpg", "line 2: several images are called 1.jpg"),
        (b"\n \n", "it names no image"),
        (b"\xff\xfe\x00", r"line 1: no image is called \\xff\\xfe"),
    ],
)
def test_a_list_that_is_not_of_the_images_is_refused_with_the_line(tmp_path, text, said):
    with pytest.raises(InputError, match=r"^sgd\.subset=") as caught:
        of_list(tmp_path, text)
    assert said.replace("\\\\", "\\") in str(caught.value)


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"sgd.subset=.*/nothing.txt: No such file or directory"):
        listed(Named(), str(tmp_path / "nothing.txt"), "sgd.subset")
    with pytest.raises(InputError, match=r"^sgd.subset=.*: it cannot be read \(.*it is not a plain file"):
        listed(Named(), str(tmp_path), "sgd.subset")


def test_a_list_without_end_is_refused_before_it_is_read_and_one_behind_a_link_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(subsets, "LIST_BYTES", 12)
    assert of_list(tmp_path, b"2.jpg\n8.png\n").tolist() == [1, 5]
    (tmp_path / "link.txt").symlink_to(tmp_path / "list.txt")
    assert listed(Named(), str(tmp_path / "link.txt"), "sgd.subset").tolist() == [1, 5]
    with pytest.raises(InputError, match=r"^sgd\.subset=.*has 13 bytes, more than the 12") as caught:
        of_list(tmp_path, b"2.jpg\n8.png\n\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_list_that_cannot_be_read_now_is_waited_for_and_no_wrong_input(number, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.0)
    away, file = install(monkeypatch, number), tmp_path / "list.txt"
    file.write_text("2.jpg\n")
    away(file, times=2)
    assert listed(Named(), str(file), "sgd.subset").tolist() == [1]
    monkeypatch.setattr(waiting, "SECONDS", 0.0)
    away(file)
    with pytest.raises(Unreadable, match=r"list\.txt cannot be read on "):
        listed(Named(), str(file), "sgd.subset")


class Splits(Named):
    names = tuple(f"cats/{number}.jpg" for number in range(9))


told = []  # by the first rank, to all; the first of two is asked first


def of_rank(rank, folder):
    """What the second of two ranks, or the first, learns from: image 7 was broken."""

    def broadcast(value):
        if rank == 0:
            told[:] = [json.dumps(value)]
        else:
            assert value is None  # it has looked at nothing for itself
        return json.loads(told[0])

    ids = np.arange(4) if rank == 0 else np.array([4, 5, 6, 8])
    subject = Subject.__new__(Subject)
    world = SimpleNamespace(rank=rank, is_main=rank == 0, broadcast=broadcast)
    world.gather = lambda count: [2, count] if rank else [count, 2]
    subject.job = SimpleNamespace(world=world, labelled=(Splits(), None), seed_for=hash)
    subject._made = {"train": (torch.from_numpy(ids).float()[:, None], ids)}
    Splits.labels = np.arange(9) + 100
    return chosen(subject, Sgd(subset=str(folder / "list.txt")))


def test_each_rank_has_those_of_its_own_images_that_were_chosen(tmp_path):
    (tmp_path / "list.txt").write_text("8.jpg\n1.jpg\n6.jpg\n7.jpg\n0.jpg\n")
    first, second = of_rank(0, tmp_path), of_rank(1, tmp_path)
    assert first.features.flatten().tolist() == [0, 1] and first.labels.tolist() == [100, 101]
    assert second.features.flatten().tolist() == [6, 8] and second.labels.tolist() == [106, 108]
    assert (first.first, second.first, first.total, second.total) == (0, 2, 4, 4)
    assert first.digest == second.digest is not None
    (tmp_path / "list.txt").write_text("8.jpg\n1.jpg\n6.jpg\n0.jpg\n")
    assert of_rank(0, tmp_path).digest != first.digest


def test_the_first_rank_alone_reads_the_list_and_all_have_its_images_or_its_error(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("8.jpg\n1.jpg\n")
    first = of_rank(0, tmp_path)
    file.unlink()
    assert of_rank(1, tmp_path).digest == first.digest
    file.write_text("8.jpg\nwolf.jpg\n")
    said = []
    for rank in (0, 1):
        with pytest.raises(InputError) as caught:
            of_rank(rank, tmp_path)
        said.append((str(caught.value), caught.value.field, caught.value.fix))
        file.unlink(missing_ok=True)
    assert said[0] == said[1] and "line 2: no image is called wolf.jpg" in said[0][0] and said[0][1] == "sgd.subset"
