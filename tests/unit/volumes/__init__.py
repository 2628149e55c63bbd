"""Looking volumes up in a folder made like a node's."""
