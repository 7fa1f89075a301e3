"""Two runs compared, image by image."""
