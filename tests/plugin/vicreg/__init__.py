"""VICReg for sslrun: variance, invariance and covariance of embeddings (Bardes, Ponce, LeCun, ICLR 2022)."""
