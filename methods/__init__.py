"""The trainers: a folder for each method, and the rooms that methods share."""
