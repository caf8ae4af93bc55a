"""One folder a paper, one YAML a table of it. None is here yet."""
