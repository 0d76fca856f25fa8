"""What people ask of a workspace, one verb a file."""
