"""Shared by everything: errors, paths, images, hosts, printing."""
