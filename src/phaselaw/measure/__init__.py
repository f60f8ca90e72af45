"""Measuring a study: the order of its calls, the drive through them, and the processes of its replicates."""
