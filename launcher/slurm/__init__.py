"""All that talks to Slurm or knows how it behaves."""
