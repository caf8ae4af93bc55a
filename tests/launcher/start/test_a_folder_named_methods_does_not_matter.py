"""Whatever lies in the working directory is the user's: nothing of it is imported."""

BOMB = "raise SystemExit('imported from the working directory')\n"


def test_folders_and_files_with_our_names_are_left_alone(sslrun, tmp_path):
    for package in ("methods", "launcher", "cluster_configs", "sweeps"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(BOMB)
    for module in ("torch", "hydra", "omegaconf", "numpy", "json", "random", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text(BOMB)
    answer = sslrun("method=rotnet", "recipe=tiny", "method.epochs=1", "--json", cwd=tmp_path, cold=True)
    assert (answer.json["state"], answer.json["joined"], answer.json["job"]) == ("done", False, None)
    assert answer.json["path"].startswith(str(tmp_path / "runs"))
    assert sslrun("status", "--json", cwd=tmp_path).json[0]["state"] == "done"
    exported = sslrun("export", answer.json["id"], cwd=tmp_path).out.strip()
    assert exported.endswith("backbone.safetensors")
