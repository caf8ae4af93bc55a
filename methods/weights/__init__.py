"""Judging a file of weights, as a kind of work of its own: `sslrun eval weights=FILE`."""
