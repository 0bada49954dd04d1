"""``hardmine demo``: the whole method on generated scenes, offline, in a few minutes."""
