"""SMoG (Pang et al., ECCV 2022)."""
