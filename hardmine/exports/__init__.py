"""What mining and searches find, in the formats of labelling and curation tools."""

from hardmine.exports.fiftyone import add_round_to_fiftyone, add_to_fiftyone
from hardmine.exports.files import FORMATS, write_export
from hardmine.exports.mined import MinedImage, images_of_hits, images_of_round

__all__ = [
    "FORMATS",
    "MinedImage",
    "add_round_to_fiftyone",
    "add_to_fiftyone",
    "images_of_hits",
    "images_of_round",
    "write_export",
]
