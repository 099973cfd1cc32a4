"""Starting, finding and ending processes of the host."""
