"""Tests of the cells, of the layers that run them and of their references."""
