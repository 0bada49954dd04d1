"""Makes and changes the folder of an index.

``build`` encodes all images, ``update`` the new and changed ones, ``compact`` frees the space of
removed ones. All three hold the folder's lock, write whole shards after a ``plan``, note each
finished shard in the build folder, and replace the manifest last (``commit``). Killed at any
moment, they leave the old index as it was, and the next run continues after the last finished
shard, also if the images have changed since (``remaining``). Under ``torch.distributed`` every rank
makes its share of the shards.
"""
