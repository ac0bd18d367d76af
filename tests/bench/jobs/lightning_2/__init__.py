"""Jobs of examples/ as programs for Lightning 2, in its own idiom, for the count of lines: same data, same models.

What several jobs need is written once, in shared.py, and counted for each that imports it, because a user with that job
alone would have to write it.
"""
