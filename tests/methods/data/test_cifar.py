import numpy as np
import pytest

from launcher.errors import InputError
from methods.data import build
from methods.data.sets.cifar10.reader import Cifar10
from methods.data.sets.cifar10.spec import TEST as CIFAR10_TEST
from methods.data.sets.cifar10.spec import TRAIN as CIFAR10_TRAIN
from methods.data.sets.cifar10.spec import Cifar10Data
from methods.data.sets.cifar100.spec import Cifar100Data
from methods.data.spec import check, check_columns


def fabricate(folder, rows=3):
    """Files in the published layout; returns {name: uint8 [rows, 3073]}."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, files = np.random.default_rng(0), {}
    for name in CIFAR10_TRAIN + CIFAR10_TEST:
        content = rng.integers(0, 256, (rows, 3073), np.uint8)
        content[:, 0] %= 10
        content.tofile(folder / name)
        files[name] = content
    return files


def test_pixels_labels_and_names_are_those_of_the_files(tmp_path):
    files = fabricate(tmp_path)
    train, test = Cifar10(tmp_path, "train"), Cifar10(tmp_path, "test")
    assert (len(train), len(test), train.channels) == (15, 3, 3)
    rows = np.concatenate([files[name] for name in CIFAR10_TRAIN])
    assert train.labels.dtype == np.int64 and train.labels.tolist() == rows[:, 0].tolist()
    for index, row in enumerate(rows):
        image = train.image(index)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), row[1:].reshape(3, 32, 32).transpose(1, 2, 0))
    assert train.name_of(4) == "data_batch_2.bin[1]" and test.name_of(2) == "test_batch.bin[2]"
    assert train.classes[0] == "airplane" and len(train.classes) == 10
    with pytest.raises(IndexError, match="image 15 of 15"):
        train.image(15)


def test_the_archives_own_sub_folder_and_its_class_names_are_found(tmp_path):
    fabricate(tmp_path / "cifar-10-batches-bin")
    names = [f"class{i}" for i in range(10)]
    (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    config = Cifar10Data(path=str(tmp_path))
    check(config)
    assert build(config, "test").classes == tuple(names)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "data_batch_3.bin").unlink(), "data_batch_3.bin is missing; unpack"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b""), r"test_batch.bin has 0 bytes, not a multiple"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(bytes(3000)), "3000 bytes, not a multiple of 3073"),
    ],
)
def test_check_names_the_file_that_is_missing_or_cut_short(tmp_path, spoil, message):
    fabricate(tmp_path)
    check(Cifar10Data(path=str(tmp_path)))
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        check(Cifar10Data(path=str(tmp_path)), "eval_data")
    assert str(error.value).startswith("eval_data.path=") and "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"data\.path"):
        Cifar10(tmp_path, "train"), Cifar10(tmp_path, "test")


def test_labels_above_nine_are_refused(tmp_path):
    fabricate(tmp_path)
    np.full((1, 3073), 10, np.uint8).tofile(tmp_path / "test_batch.bin")
    with pytest.raises(InputError, match="label 10 is above 9"):
        _ = Cifar10(tmp_path, "test").labels


def lay_cifar100(root, rows=4):
    """{file: uint8 [rows, 3074]}."""
    rng, made = np.random.default_rng(0), {}
    for name in ("train.bin", "test.bin"):
        made[name] = rng.integers(0, 256, (rows, 3074), np.uint8)
        made[name][:, 0] %= 20
        made[name][:, 1] %= 100
        made[name].tofile(root / name)
    return made


def test_cifar100_has_its_fine_labels(tmp_path):
    (tmp_path / "cifar-100-binary").mkdir()
    rows = lay_cifar100(tmp_path / "cifar-100-binary")
    names = [f"thing{number}" for number in range(100)]
    (tmp_path / "cifar-100-binary/fine_label_names.txt").write_text("\n".join(names) + "\n")
    config = Cifar100Data(path=str(tmp_path))
    check(config)
    for split in ("train", "test"):
        found, expected = build(config, split), rows[f"{split}.bin"]
        assert found.labels.tolist() == expected[:, 1].tolist() and found.classes == tuple(names)
        for index, row in enumerate(expected):
            assert np.array_equal(np.asarray(found.image(index)), row[2:].reshape(3, 32, 32).transpose(1, 2, 0))


def test_files_of_cifar10_are_no_cifar100(tmp_path):
    lay_cifar100(tmp_path)
    np.full((3, 3073), 7, np.uint8).tofile(tmp_path / "train.bin")
    said = r"train.bin has 9219 bytes, not a multiple of 3074 \(published: 153700000\); unpack cifar-100-binary.tar.gz"
    with pytest.raises(InputError, match=said):
        check(Cifar100Data(path=str(tmp_path)))
    np.full((3, 3074), 100, np.uint8).tofile(tmp_path / "train.bin")
    with pytest.raises(InputError, match="label 100 is above 99; this is not CIFAR-100's binary version"):
        _ = build(Cifar100Data(path=str(tmp_path)), "train").labels
    (tmp_path / "train.bin").unlink()
    with pytest.raises(InputError, match=r"^eval_data.path=.*: train.bin is missing; unpack cifar-100-binary.tar.gz"):
        check(Cifar100Data(path=str(tmp_path)), "eval_data")
    with pytest.raises(InputError, match=r"method.classes=10: the data have 100"):
        check_columns(Cifar100Data(), ("label",), classes=10)
