"""Clustering as a kind of work of its own: `sslrun kmeans`."""
