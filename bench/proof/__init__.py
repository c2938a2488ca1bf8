"""Prove a case's answer before it is timed: references, tolerances, hidden dropout masks.

Imports the rooms up to backend.
"""
