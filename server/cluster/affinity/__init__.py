"""Which replica should answer a request: the one that has the beginning of its prompt.

Nothing here knows Ray. `request_affinity.py` says what of a request stays the same from turn to
turn, and `replica_choice.py` chooses among replicas by that and by their load.
"""
