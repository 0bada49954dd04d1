"""``hardmine cite``: the papers that hardmine builds on, as BibTeX."""

from __future__ import annotations

import argparse

# What hardmine takes from a paper -> its entry.
_ENTRIES = {
    "the index: a few clustered CLIP vectors an image": """\
@inproceedings{levi2023clusterclip,
  title     = {Object-Centric Open-Vocabulary Image Retrieval with Aggregated Features},
  author    = {Levi, Hila and Heller, Guy and Levi, Dan and Fetaya, Ethan},
  booktitle = {British Machine Vision Conference (BMVC)},
  year      = {2023},
  eprint    = {2309.14999},
  archivePrefix = {arXiv}
}""",
    "the joint space of images and texts": """\
@inproceedings{radford2021clip,
  title     = {Learning Transferable Visual Models From Natural Language Supervision},
  author    = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and
               Goh, Gabriel and Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and
               Mishkin, Pamela and Clark, Jack and Krueger, Gretchen and Sutskever, Ilya},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2021}
}""",
    "the models and their weights": """\
@software{ilharco2021openclip,
  title     = {OpenCLIP},
  author    = {Ilharco, Gabriel and Wortsman, Mitchell and Wightman, Ross and Gordon, Cade and
               Carlini, Nicholas and Taori, Rohan and Dave, Achal and Shankar, Vaishaal and
               Namkoong, Hongseok and Miller, John and Hajishirzi, Hannaneh and
               Farhadi, Ali and Schmidt, Ludwig},
  year      = {2021},
  doi       = {10.5281/zenodo.5143773}
}""",
    "patch vectors from CLIP": """\
@inproceedings{zhou2022maskclip,
  title     = {Extract Free Dense Labels from {CLIP}},
  author    = {Zhou, Chong and Loy, Chen Change and Dai, Bo},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2022}
}""",
    "the baseline of class frequency, and the rare classes of the protocol": """\
@inproceedings{gupta2019lvis,
  title     = {{LVIS}: A Dataset for Large Vocabulary Instance Segmentation},
  author    = {Gupta, Agrim and Doll{\\'a}r, Piotr and Girshick, Ross},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2019}
}""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one entry each, with what hardmine takes from it."""
    print("\n\n".join(f"% {use}\n{entry}" for use, entry in _ENTRIES.items()))
    return 0
