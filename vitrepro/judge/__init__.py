"""Decide claims: estimates, regions, one decision, verdicts. Findings carry numbers and named reasons, no sentences.

Import the modules by name; numpy is loaded by most of them, so this face loads none.
"""
