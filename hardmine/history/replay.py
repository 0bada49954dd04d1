"""From the record of a run back to its weights, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import Floats, Round, weights_digest
from hardmine.mining.exposure import Exposure
from hardmine.mining.mine import MiningData, MiningResult, WeightPolicy, mine, policy_name


def replay_rounds(
    rounds: Sequence[Round], data: MiningData, *, policy: WeightPolicy | None = None
) -> Round:
    """Compute the weights of a recorded round again.

    Weights depend on how often each image was drawn before, so the rounds before are replayed too.

    Args:
        rounds: The rounds of a run from its first to the one wanted, as ``read_rounds`` gives them.
        data: Index, labels and training loop, as they were.
        policy: The policy that made the weights, if it was one's own.

    Returns:
        The last of the rounds, with weights and result.

    Raises:
        InputError: If rounds are missing, or the last one failed.
        IndexMismatch: If index, labels or encoder are not those of the run: the weights differ.
    """
    if not rounds:
        raise InputError("no rounds to replay")
    last = rounds[-1]
    if last.inputs is None:
        raise InputError(f"round {last.number} failed and made no weights: {last.error}")
    numbers = [done.number for done in rounds]
    if numbers != list(range(1, last.number + 1)):
        raise InputError(
            f"replaying round {last.number} needs rounds 1 to {last.number}, since weights depend "
            f"on earlier draws; got {', '.join(map(str, numbers))}"
        )
    exposure, weights = Exposure(), None
    result: MiningResult | None = None
    for done in rounds:
        if done.inputs is not None:
            result = _replay_one(done, data, exposure, weights, policy)
            exposure, weights = result.exposure, result.weights
    assert result is not None
    return replace(last, weights=result.weights, result=result)


def _replay_one(
    done: Round,
    data: MiningData,
    exposure: Exposure,
    drawn_by: Floats | None,
    policy: WeightPolicy | None,
) -> MiningResult:
    inputs = done.inputs
    assert inputs is not None
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
    result = mine(inputs, data, exposure=exposure, drawn_by=drawn_by, policy=policy)
    if weights_digest(result.weights) != done.digest:
        raise IndexMismatch(
            f"replaying round {done.number} gives other weights; the index or the labels have "
            "changed since, another version of hardmine made it, or the machine computes "
            "similarities differently"
        )
    return result


def _describe(policy: str) -> str:
    return f"the policy {policy!r}" if policy else "hardmine's own weights"
