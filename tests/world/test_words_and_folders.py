"""Folders and words as the world has them. Right values: torchvision's ImageFolder, and literal ones: of YAML's and
Hydra's grammar, of sbatch's manual, of the file system."""

import os

import pytest
from PIL import Image

from launcher.compose.overrides import parsed
from launcher.compose.training import resolve
from methods.data.folder import ImageFolder

OF_A_SPEC = {
    # numbers
    "method.lr=1e-3": 0.001, "method.warmup_epochs=2": 2.0, "method.weight_decay=1E-06": 1e-6,
    "method.momentum=.5": 0.5, "method.final_lr=0": 0.0, "method.log_every=1_0": 10, "seed=007": 7,
    # nothing, lists, choices
    "method.warmup_lr=null": None, "method.crop_scale=[0.3,1]": (0.3, 1.0), "method.schedule=cosine": "cosine",
    "method.precision='fp32'": "fp32", "eval_after=[knn,linear]": ("knn", "linear"),
    "cluster.preemptible=true": True, "cluster.bf16=False": False,
    # folders
    "data.path='/a b'": "/a b", 'runs="/it\'s/x,y"': "/it's/x,y",
    # as sbatch takes them: days-hours:minutes:seconds, and K, M, G, T
    "cluster.timeout_min=1-12:30:00": 2190, "cluster.mem_per_gpu=60G": "60G",
    # text that YAML would take for something else
    "cluster.account='007'": "007", "cluster.exclude=n[1-3]": "n[1-3]",
    "cluster.constraint=a100&nvlink|h100": "a100&nvlink|h100", "+cluster.environment.A=08:00": "08:00",
    "+cluster.environment.B='1e5'": "1e5", "+cluster.environment.C=a=b": "a=b",
    "cluster.setup=['module load x','ulimit -n 4096']": ("module load x", "ulimit -n 4096"),
    "cluster.python='srun --x /usr/bin/python3'": "srun --x /usr/bin/python3",
}  # fmt: skip
TEXTS = {
    "cluster.account": "007", "cluster.partition": "2024_01", "runs": "1e5", "group": "true", "cluster.qos": "1.50",
    "cluster.exclude": "n[1-3]", "cluster.constraint": "a100&nvlink|h100", "cluster.environment.A": "08:00",
    "cluster.environment.B": "0x1F", "cluster.environment.C": "a=b", "init_from": "12345678",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec():
    """Of all words at once."""
    words = "method=rotnet", "recipe=tiny", "data=image_folder", "cluster=v100_32gb"
    return resolve([*words, *OF_A_SPEC], planning=True)[0]


@pytest.mark.parametrize("word", OF_A_SPEC)
def test_a_word_means(spec, word):
    value = spec
    for name in word.partition("=")[0].removeprefix("+").split("."):
        value = value[name] if isinstance(value, dict) or hasattr(value, "keys") else getattr(value, name)
    right = OF_A_SPEC[word]
    value = tuple(value) if isinstance(value, list) else value
    assert value == right and type(value) is type(right)


@pytest.mark.parametrize("key", TEXTS)
def test_text_that_looks_like_a_number_stays_as_it_was_typed(key):
    assert parsed(f"{key}={TEXTS[key]}").value() == TEXTS[key]


def put(root, *names):
    for name in map(os.fsencode, names):
        file = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        Image.new("RGB", (4, 4)).save(os.fsdecode(file), "PNG")
    return root


CLASSES = {
    "two": ["cat/0.png", "dog/0.png"],
    "numbers": ["10/0.png", "9/0.png", "1/0.png", "01/0.png"],
    "upper case first": ["b/0.png", "B/0.png", "_c/0.png", "Z/0.png", "-/0.png"],
    "letters of any script": ["zebra/0.png", "ähre/0.png", "加卷/0.png", "é/0.png", "🙂/0.png"],
    "folders in folders": ["cat/a/b/0.png", "cat/1.png", "dog/x.y/z/2.png", "dog/3.png"],
    "blanks and dots": ["a b/0.png", "c.d/0.png", "e /0.png"],
    "of ImageNet": ["n01440764/n01440764_18.JPEG", "n01443537/n01443537_2.JPEG"],
    "suffixes of any case": ["cat/0.PNG", "cat/1.Jpeg", "dog/2.jPG", "dog/3.WEBP"],
    "many": [f"{name:03}/{number}.png" for name in range(12) for number in (0, 1, 10, 2)],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("case", CLASSES)
def test_classes_are_those_of_torchvision(tmp_path, case):
    from torchvision import datasets

    theirs = datasets.ImageFolder(str(put(tmp_path, *CLASSES[case])))
    found = {}
    for split in ("train", "test"):
        ours = ImageFolder(tmp_path, split)
        assert list(ours.classes) == theirs.classes
        found |= {ours.name_of(index): int(ours.labels[index]) for index in range(len(ours))}
    assert found == {os.path.relpath(file, tmp_path): label for file, label in theirs.samples}


def linked(root):
    put(root, "in/cat/0.png", "in/dog/0.png", "out/bird/0.png", "out/1.png")
    (root / "in" / "linked").symlink_to(root / "out" / "bird")
    (root / "in" / "1.png").symlink_to("../out/1.png")
    (root / "in" / "cat" / "up").symlink_to(root / "in")
    (root / "in" / "self").symlink_to(root / "in" / "self")
    (root / "in" / "gone.png").symlink_to(root / "gone.png")
    return root / "in"


# (what makes it, the names of its images)
FOLDERS = {
    "links, and loops of them": (linked, ["1.png", "cat/0.png", "dog/0.png", "linked/0.png"]),
    "hidden": (lambda root: put(root, "a.png", ".b.png", "._a.png", ".c/d.png"), ["a.png"]),
    "other files": (lambda root: put(root, "a.png", "b.txt", "c.json", "png", "d.png.tmp", "e.mp4"), ["a.png"]),
    "no letters": (lambda root: put(root, b"\xff\xfe/\xe9.png", b"a\nb.png"), ["\\xff\\xfe/\\xe9.png", "a\\nb.png"]),
    "empty folders": (lambda root: (root / "a" / "b").mkdir(parents=True) or put(root, "c.png"), ["c.png"]),
    "deep": (lambda root: put(root, "a/" * 60 + "b.png"), ["a/" * 60 + "b.png"]),
    "long names": (lambda root: put(root, "a" * 251 + ".png"), ["a" * 251 + ".png"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_holds(tmp_path, case):
    make, right = FOLDERS[case]
    dataset = ImageFolder(make(tmp_path), "train", labels="none")
    assert sorted(dataset.name_of(index) for index in range(len(dataset))) == right
    assert all(dataset.image(index).size == (4, 4) for index in range(len(dataset)))
