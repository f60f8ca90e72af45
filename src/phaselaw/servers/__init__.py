"""What servers say of their calls, held against the clock of their client."""
