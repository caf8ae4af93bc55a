"""The one training loop, what it asks of a method's trainer, and what it gives it to work with."""
