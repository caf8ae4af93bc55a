"""SeLa-v2 (Caron et al., NeurIPS 2020)."""
