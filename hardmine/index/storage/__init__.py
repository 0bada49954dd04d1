"""The folder of an index on disk, and what is read from it.

``manifest.json`` names every file with its length and SHA-256. ``images-N.parquet`` lists the
images. Each shard is two files: ``shards/NNNNN.vectors.npy`` with the region vectors, which stay
memory-mapped, and ``shards/NNNNN.regions.npz`` with boxes, masses and the regions of each image. A
folder ``graph`` may hold the graph of an approximate search. Reading gives a ``Store``, which
``search`` works on. Every file is written to a temporary name, synced and renamed, and nothing is
trusted on reading: shapes come from the manifest, never from a file's own header, and nothing is
unpickled.
"""
