"""One folder a paper, one YAML a table of it; README.md tells the format."""
