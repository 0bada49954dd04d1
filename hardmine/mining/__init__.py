"""One round of mining, step by step.

need, assess, density_ratio -> queries -> scores -> trust -> targets -> balance -> weights; ``mine``
puts the middle together, ``state`` is what a miner carries from round to round.
"""
