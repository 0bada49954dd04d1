"""Scores the images of a ``Store`` for query vectors.

An image scores the maximum over its regions. ``exact`` is the default index: it reads all vectors
block by block (``blocks``, ``scan``), multiplies them in a fast dtype with a bounded error
(``product``), keeps what may be among the best k (``candidates``) and scores that again in float64
(``top_k``). ``queries`` checks what is searched for. ``faiss`` finds its candidates by an
approximate index instead, whose ``graph`` is kept on disk. ``exclude`` searches for one thing and
not another.
"""
