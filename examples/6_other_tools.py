"""A round's numbers go to a logger, and what it found to a labelling tool.

python examples/6_other_tools.py
"""

import re
from importlib.util import find_spec

from detection import load_scenes, parse_arguments

import hardmine
from hardmine.exports import images_of_round, write_export
from hardmine.hosts import scalars


def log_to_tensorboard(values, step, folder):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)


def log_to_wandb(values, step, folder):
    import wandb

    with wandb.init(project="hardmine", dir=folder, mode="offline") as run:
        run.log(values, step=step)


def log_to_mlflow(values, step, folder):
    import mlflow

    with mlflow.start_run():  # goes where MLFLOW_TRACKING_URI says
        # MLflow refuses other characters, and class names may hold any.
        named = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in values.items()}
        mlflow.log_metrics(named, step=step)


LOGGERS = {
    "tensorboard": log_to_tensorboard,
    "wandb": log_to_wandb,
    "mlflow": log_to_mlflow,
}


def main():
    args = parse_arguments(__doc__)
    images, _ = load_scenes(args.out / "scenes", args.images)
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    miner = hardmine.HardMiner(index, encoder=encoder, images=images)
    # A validation would give these; here every second class is weak.
    done = miner.step(
        {name: 0.1 if row % 2 else 0.6 for row, name in enumerate(images.class_names)}
    )

    values = scalars(done)  # the hosts' packages log these by themselves
    for name, log in LOGGERS.items():
        if find_spec(name) is not None:
            folder = args.out.absolute() / name
            folder.mkdir(parents=True, exist_ok=True)
            log(values, done.number, folder)
            print(f"{len(values)} numbers logged to {name}")

    mined = images_of_round(done, index, encoder, images.ids, kinds=("hard", "confuser", "suspect"))
    for format, file in (("labelstudio", "tasks.json"), ("cvat", "annotations.xml")):
        write_export(mined, format, args.out / file)
        print(f"{len(mined)} regions written to {args.out / file} for {format}")


if __name__ == "__main__":
    main()
