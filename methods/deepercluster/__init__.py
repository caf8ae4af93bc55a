"""DeeperCluster (Caron et al., ICCV 2019)."""
