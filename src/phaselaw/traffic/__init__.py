"""Request logs and metrics pages, as a profile to plan with."""
