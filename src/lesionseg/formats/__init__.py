"""What one stage hands the next: each file format with its writer beside its reader."""
