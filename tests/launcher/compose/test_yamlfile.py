"""YAML is read as OmegaConf reads it, only faster."""

import pytest
import yaml
from omegaconf import OmegaConf

from launcher.compose import yamlfile
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.sweep import ablation


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


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
BOUNDLESS = {
    BOMB: "more than 100,000 values",
    "<<: &a {x: 1, <<: [*a, *a]}\n": r"\*a stands within what it names",
    "a: &a [1, *a]\n": r"\*a stands within what it names",
    "a: " + "[" * 100_000: "nested more than 50 deep",
    "{a: " * 100_000: "nested more than 50 deep",
    "- " * 100_000: "nested more than 50 deep",
    "? " * 100_000: "nested more than 50 deep",
    "a: [" + "1, " * 200_000 + "]": "more than 100,000 values",
    "#" * (5 << 20): "5,242,880 bytes, more than",
}


@pytest.mark.parametrize("text", BOUNDLESS, ids=BOUNDLESS.values())
def test_what_no_reader_comes_to_the_end_of_is_refused(tmp_path, text):
    file = tmp_path / "any.yaml"
    file.write_text(text)
    for look in (yamlfile.read, yamlfile.check):
        with pytest.raises(yamlfile.Boundless, match=BOUNDLESS[text]):
            look(file)


def test_aliases_are_read(tmp_path):
    file = tmp_path / "any.yaml"
    file.write_text("a: &a [1, {b: &b 2}]\nc: [*a, *b]\n")
    assert yamlfile.read(file) == {"a": [1, {"b": 2}], "c": [[1, {"b": 2}], 2]}
    yamlfile.check(file)


@pytest.mark.parametrize("text", [BOMB, "a: " + "[" * 100_000], ids=["aliases", "nested"])
@pytest.mark.parametrize("chosen", ["cluster=any", "cluster=local"])
def test_ones_own_groups_are_refused_in_one_line(tmp_path, text, chosen):
    file = tmp_path / "cluster" / "any.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InputError, match=rf"^{file}: .*; mend the YAML$"):
        resolve(["method=rotnet", "recipe=tiny", chosen], config_dir=tmp_path, planning=True)


def test_one_that_is_no_yaml_is_in_nobodys_way_until_it_is_chosen(tmp_path):
    file = tmp_path / "cluster" / "any.yaml"
    file.parent.mkdir()
    file.write_text("a: [1\n")
    resolve(["method=rotnet", "recipe=tiny", "cluster=local"], config_dir=tmp_path, planning=True)
    with pytest.raises(InputError, match="mend the YAML"):
        resolve(["method=rotnet", "recipe=tiny", "cluster=any"], config_dir=tmp_path, planning=True)


def test_a_sweep_is_refused_in_one_line(tmp_path):
    file = tmp_path / "any.yaml"
    file.write_text(BOMB)
    with pytest.raises(InputError, match=rf"^{file}: it holds more than 100,000 values; see"):
        ablation.read("any", file)
