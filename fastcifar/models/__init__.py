"""Networks, one file each; building them, their layer table."""
