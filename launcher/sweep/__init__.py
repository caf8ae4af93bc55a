"""Many runs that belong together: multiruns, and the papers' tables."""
