"""What two or more methods are made of: heads, losses, optimisers, schedules, memories."""
