"""What every rank of a job has, whatever it works on: the other ranks, votes, checkpoints, signs of life."""
