"""DINO (thesis chapter 5), top to bottom: student, teacher, views, targets, loss, centre."""
