"""Does mining help? A detector small enough to train by the dozen, and rivals to compare with."""
