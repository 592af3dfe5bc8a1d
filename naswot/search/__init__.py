"""Search strategies, one file each; a new public file is found by itself."""
