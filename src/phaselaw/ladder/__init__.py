"""The model ladder: TR121's seven GPT-2 variants with seeded random weights, built offline."""
