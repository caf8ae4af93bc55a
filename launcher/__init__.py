"""Turns what a person types into runs, and runs into jobs: docs/structure.md tells the way from room to room."""
