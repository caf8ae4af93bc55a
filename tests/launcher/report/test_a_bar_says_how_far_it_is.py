"""Work of which nobody knows how much there is has a count for its progress."""

from launcher.report import view


def test_what_is_known_of_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(view, "PLAIN_SECONDS", 0.0)
    with view.Bar("stopped") as bar:
        for done, of in ((0, 0), (1024, 0), (0, 0)):
            bar("looking", done, of)
        bar("packing", 0, 4)
        bar("packing", 1, 4)
    said = capsys.readouterr()
    first, second = (said.out + said.err).splitlines()
    assert first == "looking: 1,024" and second.startswith("packing: 25%, ")


def test_no_bar_is_shown_of_what_is_over_at_once(monkeypatch, capsys):
    monkeypatch.setattr(view, "PLAIN_SECONDS", 0.0)
    for late, lines in ((3600.0, 0), (0.0, 1)):
        monkeypatch.setattr(view, "LATE_SECONDS", late)
        with view.LateBar("stopped") as bar:
            for done in (0, 1):
                bar("simulating", done, 4)
        assert len(capsys.readouterr().err.splitlines()) == lines
