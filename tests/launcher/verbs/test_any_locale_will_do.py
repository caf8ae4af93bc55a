"""Files, and names of files, are UTF-8 whatever the locale says; what is said is in the terminal's own encoding."""

import json
import shutil
import subprocess

import pytest
from PIL import Image

CLASSES = ["für", "加卷"]


@pytest.fixture(scope="module")
def latin_1(sslrun, tmp_path_factory):
    """The command line of a German of 1999, whose `sslrun` is started as he would: the encoding is the process' own."""
    if not shutil.which("localedef"):
        pytest.skip("there is no localedef")
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE"], capture_output=True)
    if not (folder / "de_DE").is_dir():
        pytest.skip(f"no such locale can be made here: {made.stderr[-200:]!r}")
    return sslrun.where(LOCPATH=str(folder), LC_ALL="de_DE")


@pytest.fixture(scope="module")
def ascii_alone(sslrun):
    """As Python would have it without a mode of its own for such locales."""
    return sslrun.where(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("图像")
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(20):
            Image.new("RGB", (16, 16), (number, 0, 9)).save(folder / name / f"{number}.png")
    return folder


def ended(command, *words, cwd):
    """(exit code, what it said, as bytes)."""
    process = command.start(*words, cwd=cwd, cold=True)
    out, err = process.stdout.buffer.read(), process.stderr.buffer.read()
    assert b"Traceback" not in out + err, err
    return process.wait(), out + err


def test_a_run_and_its_report(latin_1, images, tmp_path):
    data = ("data=image_folder", f"data.path='{images}'")
    small = ("method.global_batch=8", "method.epochs=1", "method.workers=0")
    code, said = ended(latin_1, "method=rotnet", "recipe=tiny", *data, *small, cwd=tmp_path)
    assert code == 0, said
    (run,) = (tmp_path / "runs").glob("rotnet-*")
    assert json.loads((run / "spec.json").read_text())["data"]["path"] == str(images)
    code, said = ended(latin_1, "report", run.name, cwd=tmp_path)
    assert code == 0, said
    (page,) = (tmp_path / "runs" / "reports").glob("*.html")
    assert "\N{EN DASH}" in page.read_text("utf-8") or "\N{MIDDLE DOT}" in page.read_text("utf-8")


@pytest.mark.parametrize("locale", ["latin_1", "ascii_alone"])
def test_shards_keep_the_names_of_their_classes(request, locale, images, tmp_path):
    code, said = ended(request.getfixturevalue(locale), "shards", images, tmp_path / "out", cwd=tmp_path)
    assert code == 0, said
    assert json.loads((tmp_path / "out" / "classes.json").read_bytes().decode("utf-8")) == CLASSES


def test_a_terminal_is_told_in_its_own_letters(latin_1, tmp_path):
    code, said = ended(latin_1, "show", "läuft-加", cwd=tmp_path)
    assert code == 2 and said.startswith(b"sslrun: RUN=l\xe4uft-\\u52a0: there is no such run"), said
