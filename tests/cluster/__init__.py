"""Tests against real components: kube-apiserver with etcd, and an S3 server."""
