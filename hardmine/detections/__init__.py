"""What a detector found: detections, their matches with labels, average precision, slices."""
