"""What is searched: ground truths that are pickles, read without running them, Copydays, and both made here."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import build
from methods.data.photos import FILES, TEST, TILE, area, load
from methods.data.sets.copydays.spec import CopydaysData
from methods.data.sets.made_copies.reader import MadeCopies, Others
from methods.data.sets.made_copies.spec import MadeCopiesData
from methods.data.sets.made_landmarks.reader import BOX, MadeLandmarks, overlap, tiles
from methods.data.sets.made_landmarks.spec import MadeLandmarksData
from methods.data.sets.revisited import ground_truth
from methods.data.sets.revisited.spec import OxfordData, ParisData

TRUTH = {
    "imlist": ["all_souls_000013", "b", "c", "d"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [1.5, 2.0, 30.0, 40.0], "easy": np.array([0]), "hard": np.array([2, 3], np.int32), "junk": [1]},
        {"bbx": np.array([0.0, 0, 9, 9]), "easy": [], "hard": np.array([[1]], np.uint16), "junk": np.array([])},
    ],
}


def same(one, other):
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other) and np.shape(one) == np.shape(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("protocol", range(5))
def test_values_come_out_as_pickle_gives_them(protocol):
    value = {
        **TRUTH,
        "others": [True, None, -(2**40), 1e-3, "é", b"\xff\x00", (), (1,), {"a": (2, 3, 4, 5)}],
        "arrays": [
            np.arange(6, dtype=">i4").reshape(2, 3),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.array([True, False]),
            np.zeros((0, 3), np.float32),
            np.array(7),
        ],
        "again": [TRUTH["imlist"], TRUTH["imlist"]],
    }
    assert same(ground_truth.read(pickle.dumps(value, protocol)), value)
    assert ground_truth.read(pickle.dumps({"n": np.float64(0.5), "i": np.int32(3)}, protocol)) == {"n": 0.5, "i": 3}


def test_arrays_of_python_2_are_read():
    """As numpy under Python 2 pickles np.array([1, 258], int64) by protocol 0 and 2: bytes are its plain strings."""
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    kind = b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    numbers = b"S'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x01\\x00\\x00\\x00\\x00\\x00\\x00'\n"
    old = head + b"(I1\n(I2\nt" + kind + b"I00\n" + numbers + b"tb."
    assert ground_truth.read(old).tolist() == [1, 258]
    raw = struct.pack("<qq", 1, 258)
    assert ground_truth.read(old.replace(numbers, b"U" + bytes([len(raw)]) + raw)).tolist() == [1, 258]


class Calls:
    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


def hostile(folder):
    """(what the refusal says, a pickle that would write `ran` in `folder` or take the machine's memory)."""
    ran = str(folder / "ran")
    for call in (Calls(open, (ran, "w")), Calls(exec, (f"open({ran!r}, 'w')",)), Calls(getattr, ("", "join"))):
        for protocol in range(5):
            yield "it would run", pickle.dumps({"gnd": call}, protocol)
    yield "does more than hold values .INST", f"(S'{ran}'\nS'w'\ni__builtin__\nopen\n.".encode()
    yield "does more than hold values .OBJ", f"(c__builtin__\nopen\nS'{ran}'\nS'w'\no.".encode()
    yield "does more than hold values .PERSID", b"Pname\n."
    yield "does more than hold values .EXT1", b"\x80\x02\x82\x01."
    yield "does more than hold values", pickle.dumps({1, 2})  # a set: nothing of the kind is in such a file
    yield "takes more than", b"Nr" + struct.pack("<I", 2**31 - 1) + b"."  # a memo of so many places
    yield "takes more than", b"(" + b"N0" * 1_100_000 + b"."
    yield "would run numpy.lib", b"cnumpy.lib\nload\n."
    yield "array of something else", b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR."
    yield "array of something else", b"cnumpy\ndtype\n(S'V999999999999'\nI0\nI1\ntR."
    yield "something else than values", b"cnumpy\ndtype\n."
    yield "changes what it names", b"cnumpy\ndtype\n(dS'name'\nS'scalar'\nsb."
    yield "calls what is no function", b"cnumpy\nndarray\n(I99999999\ntR."
    yield "calls what is no function", b"c__builtin__\nbytes\n(I99999999\ntR."
    big = pickle.dumps(np.arange(4), 2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    assert big != pickle.dumps(np.arange(4), 2)
    yield "impossible shape", big
    yield "cannot reshape", pickle.dumps(np.arange(4), 2).replace(b"K\x04\x85", b"K\x05\x85")
    yield "nests without end|more than", b"]q\x00h\x00a."  # a list that holds itself
    laughs = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1]) for n in range(9)
    )
    yield "holds more than", laughs + b"."
    yield ".", pickle.dumps(TRUTH, 2)[:-20]
    yield ".", b"no pickle"
    yield ".", b""


def test_a_hostile_pickle_is_refused_in_one_line_and_runs_nothing(tmp_path):
    for said, content in hostile(tmp_path):
        with pytest.raises(ValueError, match=said) as caught:
            ground_truth.read(content)
        assert len(str(caught.value).splitlines()) == 1, content[:80]
    assert not (tmp_path / "ran").exists()


# -- revisited Oxford and Paris --------------------------------------------------------------------------------------


def laid_out(folder, truth=TRUTH, name="roxford5k"):
    root = folder / name
    (root / "jpg").mkdir(parents=True)
    content = truth if isinstance(truth, bytes) else pickle.dumps(truth, 2)
    (root / f"gnd_{name}.pkl").write_bytes(content)
    for number, image in enumerate(("all_souls_000013", "b", "c", "d", "q", "r")):
        Image.new("RGB", (20 + number, 10)).save(root / "jpg" / f"{image}.jpg")
    return root


@pytest.mark.parametrize(("kind", "inner"), [(OxfordData, False), (ParisData, True)])
def test_what_is_searched_comes_first_and_queries_say_what_is_relevant(tmp_path, kind, inner):
    root = laid_out(tmp_path, name=kind.name)
    data = build(kind(path=str(root if inner else tmp_path)), "test")
    assert (len(data), data.database, data.labels, data.classes) == (6, 4, None, None)
    assert [data.image(n).size[0] for n in range(6)] == [20, 21, 22, 23, 24, 25]
    assert data.name_of(0) == "all_souls_000013.jpg"
    first, second = data.queries
    assert (first.image, first.box, second.image) == (4, (1.5, 2.0, 30.0, 40.0), 5)
    assert [part.tolist() for part in first[2:]] == [[0], [2, 3], [1]]
    assert [part.tolist() for part in second[2:]] == [[], [1], []]
    assert len(build(kind(path=str(tmp_path)), "train")) == 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "gnd_roxford5k.pkl").unlink(), r"gnd_roxford5k\.pkl' is missing; .*roxford5k/\{gnd_"),
        (lambda root: [f.unlink() for f in (root / "jpg").iterdir()] and (root / "jpg").rmdir(), r"/jpg' is missing;"),
        (lambda root: (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(print)), r"it would run builtins\.print"),
        (lambda root: (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps([1])), r"it does not say \{imlist"),
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path, spoil, said):
    spoil(laid_out(tmp_path))
    with pytest.raises(InputError, match=said) as caught:
        build(OxfordData(path=str(tmp_path)), "test")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"imlist": ["../../etc/passwd", "b", "c", "d"]},
        {"imlist": ["/etc/passwd", "b", "c", "d"]},
        {"imlist": "abcd"},
        {"qimlist": ["q"]},
        {"gnd": [{"easy": [4], "hard": [], "junk": []}] * 2},  # there is no such image
        {"gnd": [{"easy": [0.5], "hard": [], "junk": []}] * 2},
        {"gnd": [{"easy": [-1], "hard": [], "junk": []}] * 2},
        {"gnd": [{"easy": [float("nan")], "hard": [], "junk": []}] * 2},
        {"gnd": [{"easy": [10**400], "hard": [], "junk": []}] * 2},
        {"gnd": [{"easy": [0], "hard": []}] * 2},
        {"gnd": [{"easy": [0], "hard": [], "junk": [], "bbx": [1, 2, 3]}] * 2},
    ],
)
def test_a_ground_truth_that_says_something_else_is_refused(tmp_path, change):
    laid_out(tmp_path, {**TRUTH, **change})
    with pytest.raises(InputError, match="it does not say"):
        build(OxfordData(path=str(tmp_path)), "test")


# -- Copydays --------------------------------------------------------------------------------------------------------


def copydays(folder, strong=("200001", "200002", "200100"), kind="jpg"):
    for name, numbers in (("original", ("200000", "200100")), ("strong", strong), ("more", ("x", "y")), ("other", "z")):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (8, 8)).save(folder / name / f"{number}.{kind}")
    return CopydaysData(path=str(folder), distractors=str(folder / "more"), whitening=str(folder / "other"))


def test_a_strong_attack_is_of_the_original_whose_name_begins_alike(tmp_path):
    config = copydays(tmp_path)
    data, others = build(config, "test"), build(config, "train")
    assert (len(data), data.database, len(others)) == (7, 4, 1)
    assert [part.tolist() for part in data.originals] == [[0], [0], [1]]
    assert [data.name_of(n).rsplit("/", 2)[-2] for n in range(7)] == ["original"] * 2 + ["more"] * 2 + ["strong"] * 3
    assert data.image(6).size == others.image(0).size == (8, 8)
    bare = CopydaysData(path=str(tmp_path))
    assert (build(bare, "test").database, len(build(bare, "train"))) == (2, 0)


def test_another_layout_of_copydays_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"/original' is missing; unpack copydays_original\.tar\.gz"):
        build(CopydaysData(path=str(tmp_path)), "test")
    config = copydays(tmp_path / "png", kind="png")
    with pytest.raises(InputError, match=r"/original' holds no \.jpg; unpack"):
        build(config, "test")
    config = copydays(tmp_path / "a", strong=("999901",))
    with pytest.raises(InputError, match=r"strong/999901\.jpg' begins like none of original/; unpack"):
        build(config, "test")
    config = copydays(tmp_path / "b")
    config.distractors = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^data\.distractors=.*nowhere: no folder that you can read; give"):
        build(config, "test")


# -- made here -------------------------------------------------------------------------------------------------------


def test_made_views_are_graded_by_how_much_of_the_place_they_show():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7) and overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    data = MadeLandmarks(queries=3, others=5, seed=1)
    assert (len(data), data.database) == (3 * 8 + 5 + 3, 3 * 8 + 5)
    for number, query in enumerate(data.queries):
        assert data.image(query.image).size == (TILE, TILE) and query.box == BOX
        for grade in ("easy", "hard", "junk"):
            names = [data.name_of(n) for n in getattr(query, grade).tolist()]
            assert names and all(name.startswith(f"place{number:03d}/{grade}") for name in names)
    sizes = {data.image(n).size for n in range(data.database)}
    assert len(sizes) > 10 and all(40 <= side <= 80 for size in sizes for side in size)


def pixels(data):
    return [data.image(number).tobytes() for number in range(len(data))]


def test_what_is_made_follows_from_the_seed_and_is_no_other_by_what_else_is_asked_for():
    landmarks, copies = pixels(MadeLandmarks(queries=2, others=3)), pixels(MadeCopies(originals=3, distractors=2))
    assert landmarks == pixels(MadeLandmarks(queries=2, others=3))
    assert landmarks[:19] == pixels(MadeLandmarks(queries=2, others=9))[:19]
    assert landmarks != pixels(MadeLandmarks(queries=2, others=3, seed=1))
    assert copies == pixels(MadeCopies(originals=3, distractors=2))
    assert copies != pixels(MadeCopies(originals=3, distractors=2, seed=1))
    others = pixels(Others(images=6))
    assert others == pixels(Others(images=12))[:6] and others != pixels(Others(images=6, seed=1))


def test_copies_differ_from_their_originals_and_from_one_another():
    data = MadeCopies(originals=4, copies=3, distractors=2)
    assert [part.tolist() for part in data.originals] == [[n] for n in range(4) for _ in range(3)]
    assert len({*pixels(data)}) == len(data) == 6 + 12
    assert all(data.image(n).width < TILE for n in range(data.database, len(data)))


def test_all_that_is_judged_is_test_tiles_and_what_is_learnt_from_has_no_pixel_of_them(monkeypatch):
    for name, row, column in tiles():
        rows, columns = np.arange(row, row + TILE), np.arange(column, column + TILE)
        assert (area(rows, columns) == TEST).all(), name

    def blackened(name):
        image = np.array(load(name).convert("RGB"))
        image[area(*map(np.arange, image.shape[:2])) == TEST] = (255, 0, 255)
        return Image.fromarray(image)

    kept = {name: blackened(name) for name in FILES}
    before = pixels(Others(images=60))
    monkeypatch.setattr("methods.data.sets.made_copies.reader.load", lambda name: kept[name])
    assert pixels(Others(images=60)) == before


def test_values_of_made_sets_are_refused_out_of_range():
    for config, field in (
        (MadeLandmarksData(queries=1), "queries"),
        (MadeLandmarksData(others=-1), "others"),
        (MadeCopiesData(originals=73), "originals"),
        (MadeCopiesData(copies=0), "copies"),
        (MadeCopiesData(images=-1), "images"),
    ):
        with pytest.raises(InputError, match=rf"^eval_data\.{field}=.*out of range"):
            config.check("eval_data", at_hand=True)
    assert len(build(MadeLandmarksData(), "train")) == 0
    assert len(build(MadeLandmarksData(queries=72), "test").queries) == 72
    assert build(MadeCopiesData(originals=72, distractors=72), "test").database == 144
