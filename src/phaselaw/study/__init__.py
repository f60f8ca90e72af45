"""What to measure: the study file, its types, the cells it expands into."""
