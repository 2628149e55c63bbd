"""The demo behind `make demo`: a pod's volume backed up, lost, and restored bit for bit, before the reader's eyes.

Rooms: `story` tells it, step by step; `data` makes the volume and changes it; `cluster` is an API server with an agent on it, and plays the kubelet where
one would act; `screen` shows; `folder` is `demo-data/`.
"""
