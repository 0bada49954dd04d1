"""Evaluation of retrieval: relevant images, rankings, the paper's protocol and table."""

from hardmine.evaluation.ranking import average_precision, average_precision_at, rank_hits
from hardmine.evaluation.relevance import (
    Relevance,
    class_groups,
    class_relevance,
    small_medium_relevance,
)
from hardmine.evaluation.retrieval import RankingScores, evaluate

__all__ = [
    "RankingScores",
    "Relevance",
    "average_precision",
    "average_precision_at",
    "class_groups",
    "class_relevance",
    "evaluate",
    "rank_hits",
    "small_medium_relevance",
]
