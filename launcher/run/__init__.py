"""A run's folder: what is in it, who may write it, what state the run is in, what of it can be deleted."""
