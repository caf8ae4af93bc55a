"""Training on labels: what the papers measure methods without labels against."""
