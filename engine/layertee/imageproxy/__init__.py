"""A server for clients of ``skopeo experimental-image-proxy``: bootc, rpm-ostree, composefs and others.

They open an image and ask for its blobs, one after the other, over a socket on which file descriptors are
passed. Protocol: version 0.2.8, skopeo-experimental-image-proxy(1).
"""
