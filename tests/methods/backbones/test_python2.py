"""Files that Python 2 wrote are read as those of today, and with the same care."""

import pickle

import publishers
import pytest
import torch

from launcher.errors import InputError
from methods.backbones import python2
from methods.backbones.python2 import renumbered
from methods.backbones.reading import _unpickled, tensors

NUMBERS = [0, -1, True, 2**31 - 1, 2**31, -(2**31) - 5, 140227358621264, 2**62, -(2**62), 1 - 2**63]


def written(path, content):
    torch.save(content, path, pickle_module=publishers.PYTHON2, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def file(tmp_path):
    steps = {NUMBERS[6]: {"momentum_buffer": torch.arange(4.0)}}
    weight = torch.arange(6.0).view(2, 3)
    return written(tmp_path / "old.pth.tar", {"numbers": NUMBERS, "state": steps, "weight": weight})


def test_numbers_and_tensors_are_what_they_were(file):
    with pytest.raises(pickle.UnpicklingError, match="Unsupported operand 73"):  # else there is no need for it all
        torch.load(file, weights_only=True)
    found = _unpickled(file)
    assert found["numbers"] == NUMBERS and [type(n) for n in found["numbers"]] == [type(n) for n in NUMBERS]
    assert found["weight"].equal(torch.arange(6.0).view(2, 3))
    assert found["state"][NUMBERS[6]]["momentum_buffer"].equal(torch.arange(4.0))


def test_a_file_without_such_numbers_stays_as_it_is(tmp_path):
    path = tmp_path / "today.pth"
    torch.save({"weight": torch.ones(3), "epoch": 7}, path, _use_new_zipfile_serialization=False)
    assert renumbered(path).getvalue() == path.read_bytes()


class Calls:
    def __reduce__(self):
        return print, ("code ran",)


def test_what_could_run_code_is_refused_and_runs_none(tmp_path, capfd):
    path = written(tmp_path / "code.pth", {"number": 2**40, "extra": Calls(), "weight": torch.ones(1)})
    with pytest.raises(InputError, match=r"^weights=.*which could run code"):
        tensors(path, "weights")
    assert "code ran" not in "".join(capfd.readouterr())


def test_a_torn_one_is_one_line(file):
    whole = file.read_bytes()
    for share in (0.3, 0.6, 0.9):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"^weights=") as caught:
            tensors(file, "weights")
        assert "\n" not in str(caught.value)


def test_a_number_beyond_any_address_is_one_line(file):
    file.write_bytes(file.read_bytes().replace(b"I140227358621264\n", b"I" + b"9" * 40 + b"\n"))
    with pytest.raises(OverflowError):
        renumbered(file)
    with pytest.raises(InputError, match=r"^weights=.*cannot be read"):
        tensors(file, "weights")


def test_the_largest_numbers_have_72_bits_with_their_sign(tmp_path):
    numbers = [2**64 - 1, 2**64, 2**71 - 1, -(2**71)]
    text = b"(" + b"".join(b"I%d\n" % number for number in numbers) + b"l."
    path = tmp_path / "numbers"
    path.write_bytes(text + b"N." * 4)
    assert pickle.loads(renumbered(path).getvalue()) == numbers
    for number in (2**71, -(2**71) - 1):
        path.write_bytes(b"I%d\n." % number + b"N." * 4)
        with pytest.raises(OverflowError):
            renumbered(path)


def test_a_file_of_numbers_without_end_is_refused_in_one_line(file, monkeypatch):
    known = sum(type(number) is int for number in NUMBERS)
    monkeypatch.setattr(python2, "MOST", 10 * known)
    assert renumbered(file)
    monkeypatch.setattr(python2, "MOST", 5)
    with pytest.raises(ValueError, match=r"^it has more than 5 numbers as Python 2 wrote them$"):
        renumbered(file)
    with pytest.raises(InputError, match=r"^weights=.*cannot be read") as caught:
        tensors(file, "weights")
    assert "\n" not in str(caught.value)


def test_the_numbers_of_all_parts_of_a_file_count(tmp_path, monkeypatch):
    path = tmp_path / "numbers"
    path.write_bytes(b"I1234\n." * 5)
    monkeypatch.setattr(python2, "MOST", 5)
    assert renumbered(path).getvalue().count(b"\x8a") == 5
    monkeypatch.setattr(python2, "MOST", 4)
    with pytest.raises(ValueError, match="more than 4 numbers"):
        renumbered(path)
