"""Looking into networks: what they cost, what they see, what they have learned, how fast they run."""
