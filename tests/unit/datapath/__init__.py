"""The data path's pure parts."""
