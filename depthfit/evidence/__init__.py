"""What an image says: keypoints, depth, masks, cameras and a regressor's predictions, read from files."""
