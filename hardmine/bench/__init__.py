"""Does mining help? A detector small enough to train by the dozen, and baselines to compare with."""
