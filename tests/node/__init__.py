"""A real node: kubelet, containerd, control plane, our image in pods, real volumes; `make test-node`."""
