"""Headers of shards, read without numpy or safetensors, say what those would read."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from launcher.errors import InputError
from launcher.kmeans.features import first_bad_row
from methods.kmeans.folder import FeatureFolder, scan
from methods.kmeans.sources import mapped


def rows(n, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def whole(folder):
    return torch.cat([mapped(shard, 0, shard.rows) for shard in folder.shards])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy(tmp_path, dtype):
    for name, n in (("b", 3), ("a", 5), ("c", 0)):
        np.save(tmp_path / f"{name}.npy", rows(n, seed=n).astype(dtype))
    folder = scan(tmp_path)
    assert [shard.path.name for shard in folder.shards] == ["a.npy", "b.npy", "c.npy"]
    assert (len(folder), folder.dim) == (8, 6)
    wanted = np.concatenate([rows(5, seed=5), rows(3, seed=3)]).astype(dtype)
    assert torch.equal(whole(folder), torch.from_numpy(wanted))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_safetensors(tmp_path, dtype):
    given = torch.from_numpy(rows(7)).to(dtype)
    save_file({"x": given[:4].clone()}, tmp_path / "0.safetensors", metadata={"made": "here"})
    save_file({"ids": torch.arange(3), "features": given[4:].clone()}, tmp_path / "1.safetensors")
    assert torch.equal(whole(scan(tmp_path)), given)


def test_a_block_is_made_of_pieces_and_its_rows_have_names(tmp_path):
    for number, n in enumerate((4, 0, 3)):
        np.save(tmp_path / f"{number}.npy", rows(n))
    folder = scan(tmp_path)
    assert [(shard.path.name, a, b) for shard, a, b in folder.pieces(2, 6)] == [("0.npy", 2, 4), ("2.npy", 0, 2)]
    assert folder.pieces(7, 7) == []
    assert folder.name_of(3) == "row 3 of 0.npy" and folder.name_of(4) == "row 0 of 2.npy"


def test_another_rank_is_told_all_of_it(tmp_path):
    for number, n in enumerate((4, 0, 3)):
        np.save(tmp_path / f"{number}.npy", rows(n))
    folder = scan(tmp_path)
    assert FeatureFolder.from_json(json.loads(json.dumps(folder.to_json()))) == folder


def test_shards_written_anew_are_another_content(tmp_path):
    np.save(tmp_path / "0.npy", rows(4))
    before = scan(tmp_path).content
    assert scan(tmp_path).content == before
    np.save(tmp_path / "0.npy", rows(4, seed=1))
    assert scan(tmp_path).content != before


def fortran(folder):
    np.save(folder / "0.npy", np.asfortranarray(rows(4)))


def truncated(folder):
    np.save(folder / "0.npy", rows(400))
    content = (folder / "0.npy").read_bytes()
    (folder / "0.npy").write_bytes(content[: len(content) // 2])


def two_tensors(folder):
    save_file({"x": torch.zeros(2, 2), "y": torch.zeros(2, 2)}, folder / "0.safetensors")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "there are no shards in it"),
        (lambda folder: np.save(folder / "0.npy", np.zeros((3, 2), np.int32)), "dtype is <i4"),
        (lambda folder: np.save(folder / "0.npy", np.zeros(3, np.float32)), "its shape is [3]"),
        (lambda folder: (folder / "0.npy").write_bytes(b"no"), "it is damaged"),
        (lambda folder: (folder / "0.safetensors").write_bytes(b"\xff" * 40), "it is damaged"),
        (fortran, "column after column"),
        (truncated, "shorter than its header says"),
        (two_tensors, "none is called features"),
    ],
)
def test_what_is_no_folder_of_features_is_refused(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(InputError, match=r"features=.*") as refused:
        scan(tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("other", "said"), [(rows(2, d=5), "it has d=5, and 0.npy has 6"), (rows(2).astype(np.float16), "dtype=fp16")]
)
def test_shards_that_do_not_go_together_are_refused(tmp_path, other, said):
    np.save(tmp_path / "0.npy", rows(2))
    np.save(tmp_path / "1.npy", other)
    with pytest.raises(InputError) as refused:
        scan(tmp_path)
    assert "1.npy" in str(refused.value) and said in str(refused.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_bad_row_is_found(bad):
    features = torch.from_numpy(rows(10))
    assert first_bad_row(features) is None
    features[7, 2] = bad
    assert first_bad_row(features) == 7
