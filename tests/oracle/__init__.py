"""The oracle: what tests ask whether a restored tree is the tree that was backed up. Shares no code with what it judges."""
