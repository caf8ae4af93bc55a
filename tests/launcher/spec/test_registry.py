"""What is installed is looked through once: it takes a hundredth of a second, and a plan may ask for every method."""

from launcher.spec import registry


def test_methods_of_packages_are_looked_for_once(monkeypatch):
    entry_points, asked = registry.entry_points, []
    monkeypatch.setattr(registry, "entry_points", lambda **group: asked.append(group) or entry_points(**group))
    for known in vars(registry).values():
        if hasattr(known, "cache_clear"):
            known.cache_clear()
    for name in registry.names():
        assert registry.method(name).name == name
    assert asked == [{"group": "sslrun.methods"}]
