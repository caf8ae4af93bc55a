"""What was typed becomes a spec: for training, evaluating and clustering, one run or many."""
