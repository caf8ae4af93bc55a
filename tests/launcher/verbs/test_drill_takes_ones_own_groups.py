"""A drill finds one's own groups where the other verbs find them."""

from argparse import ArgumentParser

from launcher.verbs import drill


def test_in_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/faster.yaml").write_text("defaults: [rotnet, _self_]\nlr: 0.3\n")
    monkeypatch.setenv("SSLRUN_CONFIG_DIR", str(tmp_path))
    parser = ArgumentParser()
    drill.add_arguments(parser)
    options = parser.parse_args(["method=faster", f"runs={tmp_path / 'runs'}"])
    setting = drill._setting(options, say=print)
    assert (setting.spec.method.name, setting.spec.method.lr) == ("rotnet", 0.3)
    assert setting.options == ("--config-dir", str(tmp_path))  # for the runs that it starts
