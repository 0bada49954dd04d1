"""An index whose parts are held by several processes, which may run on several machines.

``holder`` runs in each of them and answers for its images. ``index`` asks all holders and merges
their answers. ``over_ranks`` and ``on_ray`` are the two ways to ask: ranks of torch.distributed,
and Ray actors.
"""
