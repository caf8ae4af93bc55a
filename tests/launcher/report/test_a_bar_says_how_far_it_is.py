"""Work of which nobody knows how much there is has a count for its progress."""

from launcher.report import bar as bars


def test_what_is_known_of_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(bars, "PLAIN_SECONDS", 0.0)
    with bars.Bar("stopped") as bar:
        for done, of in ((0, 0), (1024, 0), (0, 0)):
            bar("looking", done, of)
        bar("packing", 0, 4)
        bar("packing", 1, 4)
    said = capsys.readouterr()
    first, second = (said.out + said.err).splitlines()
    assert first == "looking: 1,024" and second.startswith("packing: 25%, ")
