"""Images that cannot be decoded: a few are skipped, counted and said, too many end the run with their names."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

TINY = ("method=rotnet", "recipe=tiny", "method.epochs=1", "data=image_folder")
ODD = (
    "with space.png",
    "ünïcode-図.png",
    'quote\'s "both".png',
    "[bold]markup.png",
    "new\nline.png",
    "-dash.png",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """200 small pictures in two classes, some with names that need care."""
    folder = tmp_path_factory.mktemp("images")
    names = [*ODD, *(f"{number}.png" for number in range(len(ODD), 200))]
    for number, name in enumerate(names):
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(place / name)
    Image.fromarray(pixels).save(os.fsencode(folder / "a") + b"/latin-\xe9.png", format="PNG")
    return folder


def broken(images, folder, names):
    """A copy of the folder, by links, in which `names` are damaged."""
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for image in os.listdir(os.fsencode(images / name)):
            os.link(os.fsencode(images / name) + b"/" + image, os.fsencode(folder / name) + b"/" + image)
    for name in names:
        (folder / name).unlink()
        (folder / name).write_bytes(b"\x89PNG, but not for long")
    return folder


def test_a_few_are_skipped_and_said(sslrun, watched, images, tmp_path):
    folder = broken(images, tmp_path / "data", ["a/10.png"])
    answer = sslrun(*TINY, f"data.path={folder}", f"runs={watched.runs}", "--json")
    assert answer.json["state"] == "done"
    assert "broken     1 images could not be decoded: a/10.png" in answer.err
    (event,) = watched.events("broken_images")
    assert event["count"] == 1
    assert event["files"][0].startswith("a/10.png: ")


def test_too_many_end_the_run_and_are_named(sslrun, one_line, watched, images, tmp_path):
    names = ["a/with space.png", "b/ünïcode-図.png", 'a/quote\'s "both".png', "a/new\nline.png"]
    names += [f"{'ab'[number % 2]}/{number}.png" for number in range(40, 70)]
    folder = broken(images, tmp_path / "data", names)
    line = one_line(sslrun(*TINY, f"data.path={folder}", f"runs={watched.runs}", code=2), inside=True)
    assert all(part in line for part in ("data.max_broken=0.01", "cannot be decoded", "mend them and resume"))
    named = [name for name in map(repr, names) if name[1:-1] in line]
    assert named, line
    assert watched.events("end")[-1]["cause"] == "input"
    assert watched.gone()


def test_broken_images_of_eval_data_are_named_as_such(sslrun, one_line, watched, images, tmp_path):
    judged = broken(images, tmp_path / "judged", [f"a/{number}.png" for number in range(8, 40, 2)])
    launch = (*TINY, f"data.path={images}", "data.labels=none", "eval_data=image_folder", f"eval_data.path={judged}")
    line = one_line(sslrun(*launch, f"runs={watched.runs}", code=2), inside=True)
    assert "a/8.png: " in line or "a/10.png: " in line


def test_a_killed_run_with_loader_workers_can_be_resumed_at_once(sslrun, signalled, watched, images):
    launch = ("method=rotnet", "recipe=tiny", "data=image_folder", f"data.path={images}", "method.workers=2")
    assert signalled(*launch, f"runs={watched.runs}", number=signal.SIGKILL, after=4).code
    assert sslrun("resume", watched.path, "--json").json["state"] == "done"
