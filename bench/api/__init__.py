"""The Python face, which `import bench` offers: check and compare cells from notebooks, scripts and tests.

On top of the rooms, beside the commands, and may import all of them.
"""
