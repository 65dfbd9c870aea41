"""Other people's formats: weights read safely and brought into our networks."""
