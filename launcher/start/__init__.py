"""One start of a run, from its submission to the decision whether it starts again."""
