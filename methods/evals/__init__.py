"""How a run is judged: one folder for each protocol, with its settings and what runs it. What they share lies here."""
