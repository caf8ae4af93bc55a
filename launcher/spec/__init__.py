"""What a run is: what a person can set, what is frozen of it, and what a method says of itself."""
