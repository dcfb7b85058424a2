"""What networks see in a photograph: people, keypoints, depth and masks."""
