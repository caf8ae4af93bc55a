"""How a spec lies on a cluster and what it takes: arithmetic that touches nothing, and the batch script."""
