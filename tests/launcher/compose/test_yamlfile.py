"""YAML is read as OmegaConf reads it, only faster."""

import pytest
import yaml
from omegaconf import OmegaConf

from launcher.compose import yamlfile


def test_values_are_those_of_omegaconf(tmp_path):
    file = tmp_path / "any.yaml"
    file.write_text("rate: 1e-3\nday: 2024-01-02\nyes: on\nlist: [1, .5, null]\ninner: {a: '1'}\n")
    found = yamlfile.read(file)
    assert found == OmegaConf.to_container(OmegaConf.load(file))
    assert found["rate"] == 1e-3 and found["day"] == "2024-01-02"


@pytest.mark.parametrize("text", ["2:00:00", "16:00", "1:30", "0123", "007"])
def test_times_and_numbers_of_accounts_are_text(tmp_path, text):
    file = tmp_path / "any.yaml"
    file.write_text(f"given: {text}\n")
    assert yamlfile.read(file) == {"given": text} == OmegaConf.to_container(OmegaConf.load(file))


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-5", -5), ("1_000", 1000), ("0x1F", 31), ("+3", 3)])
def test_numbers_are_numbers(tmp_path, text, number):
    file = tmp_path / "any.yaml"
    file.write_text(f"given: {text}\n")
    assert yamlfile.read(file) == {"given": number} == OmegaConf.to_container(OmegaConf.load(file))


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: !!python/object/apply:os.getcwd []\n", "a: [1\n"])
def test_what_omegaconf_refuses_is_refused(tmp_path, text):
    file = tmp_path / "any.yaml"
    file.write_text(text)
    with pytest.raises(yaml.YAMLError):
        yamlfile.read(file)
    with pytest.raises(yaml.YAMLError):
        OmegaConf.load(file)
