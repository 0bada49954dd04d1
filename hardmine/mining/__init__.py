"""One round of mining, step by step.

need, assess -> queries -> scores -> trust -> targets -> balance -> weights -> exposure; ``mine``
puts the middle together, ``state`` is what a miner carries from round to round.
"""
