"""MoCo-v2 (He et al., CVPR 2020; Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning")."""
