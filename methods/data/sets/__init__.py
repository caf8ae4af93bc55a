"""A folder for each data set: `spec.py`, which the launcher reads, and `reader.py`, which reads its images."""
