"""MATLAB's files, as scipy writes them: of variables, and of nothing without bounds."""

import zlib

import numpy as np
import pytest
from scipy.io import savemat

from launcher.errors import InputError
from methods.data.sets import matlab


@pytest.mark.parametrize("compressed", [True, False])
def test_of_a_matlab_file_only_what_is_asked_for_is_read_and_nothing_without_bounds(tmp_path, monkeypatch, compressed):
    file = tmp_path / "some.mat"
    made = {"x": np.arange(5), "features": np.zeros((300, 300)), "a_long_name": np.array([["k", "mm"]], object)}
    savemat(file, made, do_compression=compressed)
    monkeypatch.setattr(matlab, "MOST", 10_000)  # features have 720,000 bytes
    found = matlab.variables(str(file), ("x", "a_long_name"), "fix it")
    assert found["x"].tolist() == [0, 1, 2, 3, 4] and found["a_long_name"].tolist() == ["k", "mm"]
    with pytest.raises(InputError, match=r"is no sound MATLAB file \(features .*more than 10,000 bytes\); fix it"):
        matlab.variables(str(file), ("features",), "fix it")


def test_a_matlab_file_that_is_damaged_is_told_in_a_line(tmp_path):
    file = tmp_path / "some.mat"
    savemat(file, {"x": np.arange(50)}, do_compression=True)
    whole = file.read_bytes()
    for damaged in (b"", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", whole[:150], whole[:140] + bytes(60)):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"^data.path: '.*some.mat' (is no sound MATLAB file|has no variable 'x')"):
            matlab.variables(str(file), ("x",), "fix it")
    body = bytearray(zlib.decompress(whole[136:]))
    body[32:36] = (2**30).to_bytes(4, "little")  # a side of the array
    packed = zlib.compress(bytes(body))
    file.write_bytes(whole[:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(InputError, match="x is said to be larger than it is"):
        matlab.variables(str(file), ("x",), "fix it")
