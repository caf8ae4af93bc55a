"""How a run is judged: one file a protocol."""
