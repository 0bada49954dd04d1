"""From the record of a round back to its weights, to the bit."""

from __future__ import annotations

from dataclasses import replace

from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import Round, weights_digest
from hardmine.mining.mine import MiningData, WeightPolicy, mine, policy_name


def replay_round(done: Round, data: MiningData, *, policy: WeightPolicy | None = None) -> Round:
    """Compute the weights of a recorded round again.

    Args:
        done: The round, as ``read_rounds`` gives it.
        data: Index and labels, as they were.
        policy: The policy that made the weights, if it was one's own.

    Returns:
        The round, with weights and result.

    Raises:
        InputError: If the round failed.
        IndexMismatch: If index, labels or encoder are not those of the run: the weights differ.
    """
    inputs = done.inputs
    if inputs is None:
        raise InputError(f"round {done.number} failed and made no weights: {done.error}")
    for name, recorded, current in (
        ("encoder", inputs.encoder, data.scores.encoder.fingerprint),
        ("num_images", inputs.num_images, len(data)),
    ):
        if recorded != current:
            raise IndexMismatch(
                f"round {done.number} was mined with {name} {recorded}, got {current}; "
                "open the index, the labels and the encoder of that run"
            )
    name = "" if policy is None else policy_name(policy)
    if inputs.policy != name:
        raise InputError(
            f"round {done.number} drew by {_describe(inputs.policy)}, this miner draws by "
            f"{_describe(name)}; replay with the same policy"
        )
    result = mine(inputs, data, policy=policy)
    if weights_digest(result.weights) != done.digest:
        raise IndexMismatch(
            f"replaying round {done.number} gives other weights; the index or the labels have "
            "changed since, another version of hardmine made it, or the machine computes "
            "similarities differently"
        )
    return replace(done, weights=result.weights, result=result)


def _describe(policy: str) -> str:
    return f"the policy {policy!r}" if policy else "hardmine's own weights"
