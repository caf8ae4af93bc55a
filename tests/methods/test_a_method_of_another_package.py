"""A method that an installed package registers is one like ours: found, refused by name, trained, and kept."""

from pathlib import Path

SPEC = """
    import dataclasses
    from dataclasses import dataclass

    from methods.rotnet import spec as rotnet


    @dataclass
    class ToyConfig(rotnet.RotNetConfig):
        name: str = "toy"
        weight: float = 1.0


    def tiny():
        recipe = rotnet.tiny()
        return dataclasses.replace(recipe, method=ToyConfig(**{**vars(recipe.method), "name": "toy"}))


    METHOD = dataclasses.replace(
        rotnet.METHOD, name="toy", config=ToyConfig, recipes={"tiny": tiny}, trainer="toy.trainer:Toy"
    )
"""

TRAINER = """
    from methods.rotnet.trainer import RotNet


    class Toy(RotNet):
        def loss(self, batch, step):
            loss, scalars = super().loss(batch, step)
            return self.job.config.weight * loss, scalars
"""


def test_it_is_found_and_trained_from_a_copy_of_its_code(with_method, one_line, tmp_path):
    sslrun = with_method("toy", spec=SPEC, trainer=TRAINER)
    words = "method=toy", "recipe=tiny", "method.epochs=1", f"runs={tmp_path / 'runs'}"
    assert "method.weigth" in one_line(sslrun(*words, "method.weigth=2", code=2))
    made = sslrun(*words, "method.weight=2", "--json").json
    assert made["state"] == "done"
    assert (Path(made["path"]) / "code" / "toy" / "trainer.py").is_file()


def test_a_package_made_for_another_sslrun_is_one_line_and_hides_nothing(with_method, one_line):
    sslrun = with_method("toy", spec="from launcher.nowhere import Method\n")
    line = one_line(sslrun("plan", "method=toy", code=2))
    assert "method=toy: toy.spec:METHOD cannot be imported: No module named 'launcher.nowhere'; install a toy" in line
    said = sslrun("--help").out
    assert "cannot be imported" in said and "rotnet" in said
