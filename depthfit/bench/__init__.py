"""Measurements that the README quotes: accuracy on synthetic people, speed."""
