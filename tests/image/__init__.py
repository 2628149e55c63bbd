"""The container image as a whole: built, unpacked, and run as a container runtime would."""
