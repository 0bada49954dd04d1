"""Reports: class gaps, slices, search results; pages that need no network."""
