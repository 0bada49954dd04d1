"""Fixtures of the MMDetection tests. MMDetection's own warnings do not count as errors here."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("mmdet") is None or importlib.util.find_spec("mmcv") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmcv_ext_from_torchvision

        mmcv_ext_from_torchvision.install()
        import mmdet.datasets
        import mmdet.evaluation
        import mmdet.models  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore warnings in this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a small training set and a small validation set."""
    from mmdet_case import write_scenes

    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "train", num_images=24, seed=1)
    write_scenes(root / "val", num_images=8, seed=2)
    return root / "train", root / "val"


@pytest.fixture(autouse=True)
def fresh_registries() -> Iterator[None]:
    """Start each test with mmdet's scope and without the message hubs of earlier tests."""
    from mmdet.utils import register_all_modules
    from mmengine.logging import MessageHub

    register_all_modules(init_default_scope=True)
    yield
    MessageHub._instance_dict.clear()
